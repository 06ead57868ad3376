"""CamVid: street images with eleven classes, from three drives.

Brostow et al., "Semantic object classes in video" (2009), in the layout of the SegNet tutorial:
`train/images`, `train/labels`, `val/images`, `val/labels`; label maps hold class ids 0–10, 255 =
void.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from emu_perception.camera import Intrinsics
from emu_perception.data import files
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import (
    FileDataset,
    Item,
    Problem,
    Readers,
    read_item_labels,
)
from emu_perception.data.sample import DataError
from emu_perception.data.splits import (
    choose_split,
    hold_out,
    tail,
)
from emu_perception.labels import load_label_set


@register_dataset(
    "camvid",
    splits=("train", "val"),
    evaluation_split="val",
    variants=({"calibration_fraction": 0.0},),
)
def build_camvid(
    root: Path,
    *,
    split: str,
    held_out: str | None = None,
    calibration_fraction: float = 0.1,
    frames: Sequence[str] | None = None,
    focal_ratio: float | None = None,
) -> FileDataset:
    """Street images with eleven classes, without depth.

    Args:
        root: holds `train` and `val`, each with `images` and `labels`.
        split: `train`, `val`, or `calibration`: a block of training frames for temperature scaling
            and the like, which `train` leaves out.
        held_out: a drive (0001TP, 0006R0, 0016E5) that `train` and `calibration` leave out and
            whose frames in the `train` folder become `val`. The frames in the `val` folder are one
            clip of 0016E5, fifteen a second; they are part of neither then.
        calibration_fraction: the last fraction of each drive's training frames.
        frames: only these of the split, by name, such as 0016E5_07959.
        focal_ratio: focal length / image width to assume, with the principal point in the middle;
            None: the camera is unknown.
    """
    label_set = load_label_set("camvid")
    train, problems = _list(root / "train")
    val, val_problems = _list(root / "val")
    others, held = hold_out(train, held_out, root)
    train, calibration = tail(others, calibration_fraction, group=lambda item: item.clip)
    known = {"train": train, "calibration": calibration, "val": held if held_out else val}
    table = files.LabelTable.of_classes(len(label_set))
    items = choose_split(split, known, root)
    return FileDataset(
        items if frames is None else _only(items, frames, root),
        Readers(
            labels=partial(read_item_labels, table=table),
            intrinsics=partial(_assumed_camera, focal_ratio=focal_ratio),
        ),
        label_set,
        val_problems if split == "val" else problems,
    )


def _assumed_camera(
    item: Item, size: tuple[int, int], focal_ratio: float | None
) -> Intrinsics | None:
    if focal_ratio is None:
        return None
    return Intrinsics.from_focal_ratio(size[1], size[0], focal_ratio)


def _only(items: list[Item], names: Sequence[str], root: Path) -> list[Item]:
    by_name = {item.name: item for item in items}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise DataError.at(root, f"the split has no frame '{unknown[0]}'")
    return [by_name[name] for name in names]


def _list(folder: Path) -> tuple[list[Item], list[Problem]]:
    images = files.list_files(folder / "images")
    labels = files.list_files(folder / "labels", (".png",))
    files.require_items(list(images), folder / "images", "images")
    items = [
        # 0016E5_07959 is frame 7959 of drive 0016E5.
        Item(
            name, name.partition("_")[0], image, labels.get(name, folder / "labels" / f"{name}.png")
        )
        for name, image in images.items()
    ]
    return items, [
        Problem(str(path), "there is no image of this name")
        for path in files.unmatched(images, labels)
    ]
