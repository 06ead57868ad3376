"""Cityscapes: street images with nineteen classes and stereo depth.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016), as it is
distributed: `leftImg8bit`, `gtFine`, `disparity` and `camera`, each with `train`, `val` and cities.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

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
from emu_perception.data.splits import choose_split, tail
from emu_perception.labels import load_label_set

_LABEL_IDS = 34  # the ids 0–33 of the label files, in the order of the official label table
_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CATEGORIES = {
    7: 0, 8: 0, 9: 0, 10: 0,  # flat
    11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1,  # construction
    17: 2, 18: 2, 19: 2, 20: 2,  # object
    21: 3, 22: 3,  # nature
    23: 4,  # sky
    24: 5, 25: 5,  # human
    26: 6, 27: 6, 28: 6, 29: 6, 30: 6, 31: 6, 32: 6, 33: 6,  # vehicle
}  # fmt: skip
_CLASSES = {
    19: ("cityscapes", {label_id: train_id for train_id, label_id in enumerate(_TRAIN_IDS)}),
    7: ("cityscapes_7", _CATEGORIES),
}
_MIN_DEPTH = 1e-3  # metres


@register_dataset("cityscapes", splits=("train", "val"), evaluation_split="val")
def build_cityscapes(
    root: Path,
    *,
    split: str,
    classes: int = 19,
    calibration_fraction: float = 0.0,
    max_depth: float = 80.0,
    sequences: bool = False,
) -> FileDataset:
    """Street images with 19 classes (or 7 categories) and depth from stereo.

    Args:
        root: holds `leftImg8bit` and, for what they supervise, `gtFine`, `disparity` and `camera`.
        split: `train`, `val`, `test` (images only), or `calibration`.
        classes: 19 training classes, or the 7 categories.
        calibration_fraction: the last fraction of the training images, which come city by city;
            left out of `train`.
        max_depth: metres; depth from here on counts as none.
        sequences: with the frames before and after, from `leftImg8bit_sequence`.
    """
    if classes not in _CLASSES:
        raise ValueError(f"cityscapes has 19 classes or 7 categories, not {classes}")
    label_set_name, mapping = _CLASSES[classes]
    folder = "train" if split == "calibration" else split
    items, problems = (
        _list(root, folder, sequences) if folder in ("train", "val", "test") else ([], [])
    )
    train, calibration = tail(items, calibration_fraction)
    known = {"train": train, "calibration": calibration, "val": items, "test": items}
    table = files.LabelTable(
        mapping, unlabelled=(*range(_LABEL_IDS), 255)
    )  # 255: licence plate, −1
    return FileDataset(
        choose_split(split, known, root),
        Readers(
            labels=partial(read_item_labels, table=table),
            depth=partial(_read_depth, max_depth=max_depth),
            intrinsics=_read_intrinsics,
        ),
        load_label_set(label_set_name),
        problems,
    )


def _list(root: Path, split: str, sequences: bool) -> tuple[list[Item], list[Problem]]:
    """Items and what is missing as a whole."""
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    files.require_items(images, root / "leftImg8bit" / split, "<city>/*_leftImg8bit.png")
    there, problems = {}, []
    for kind in ("gtFine", "disparity", "camera"):
        there[kind] = (root / kind / split).is_dir() and not (kind == "gtFine" and split == "test")
        if not there[kind]:
            missing = "without classes" if kind == "gtFine" else "without depth or camera"
            problems.append(
                Problem(str(root / kind / split), f"not there: images are {missing}", fatal=False)
            )

    def beside(image: Path, kind: str, ending: str) -> Path | None:
        name = image.name.replace("leftImg8bit.png", ending)
        return root / kind / split / image.parent.name / name if there[kind] else None

    items = []
    for image in images:
        name = image.name.removesuffix("_leftImg8bit.png")
        city, sequence = name.split("_")[:2]
        items.append(
            Item(
                name,
                f"{city}_{sequence}",
                image,
                labels=beside(image, "gtFine", "gtFine_labelIds.png"),
                depth=beside(image, "disparity", "disparity.png"),
                camera=beside(image, "camera", "camera.json"),
                neighbours=_neighbours(root, split, image) if sequences else None,
            )
        )
    for kind, ending in (("gtFine", "gtFine_labelIds.png"), ("disparity", "disparity.png")):
        expected = {beside(image, kind, ending) for image in images}
        for path in sorted((root / kind / split).glob(f"*/*_{ending}")):
            if path not in expected and there[kind]:
                problems.append(Problem(str(path), "there is no image of this name"))
    return items, problems


def _neighbours(root: Path, split: str, image: Path) -> tuple[Path, Path]:
    """The frames before and after an annotated one, which is the twentieth of thirty."""
    city, sequence, frame, _ = image.name.split("_")
    folder = root / "leftImg8bit_sequence" / split / city
    before, after = (
        folder / f"{city}_{sequence}_{int(frame) + step:06d}_leftImg8bit.png" for step in (-1, 1)
    )
    return before, after


def disparity_to_metres(
    stored: np.ndarray, baseline: float, fx: float, max_depth: float = 80.0
) -> np.ndarray:
    """`(H, W)` uint16 of a disparity file -> float32 metres, 0 = none.

    Disparity d = (p − 1) / 256 for p > 1 (0 is invalid, 1 infinitely far); depth = baseline · fx /
    d; valid between 1 mm and `max_depth`.
    """
    disparity = (stored.astype(np.float32) - 1) / 256
    valid = stored > 1
    depth = np.where(valid, np.float32(baseline * fx) / np.where(valid, disparity, 1), 0)
    depth[(depth <= _MIN_DEPTH) | (depth >= max_depth)] = 0
    return depth.astype(np.float32)


def _read_depth(item: Item, max_depth: float) -> np.ndarray:
    assert item.depth is not None
    if item.camera is None:
        raise DataError.at(
            item.depth, "disparity needs the camera files, and there is no camera folder"
        )
    camera = files.read_json(item.camera)
    baseline = files.json_number(camera, item.camera, "extrinsic", "baseline")
    fx = files.json_number(camera, item.camera, "intrinsic", "fx")
    stored = files.require_type(files.read_stored(item.depth), item.depth, np.uint16)
    return disparity_to_metres(stored, baseline, fx, max_depth)


def _read_intrinsics(item: Item, size: tuple[int, int]) -> Intrinsics | None:
    if item.camera is None:
        return None
    camera = files.read_json(item.camera)
    fx, fy, cx, cy = (
        files.json_number(camera, item.camera, "intrinsic", key) for key in ("fx", "fy", "u0", "v0")
    )
    try:
        return Intrinsics(fx, fy, cx, cy, width=size[1], height=size[0])
    except ValueError as error:
        raise DataError.at(item.camera, str(error)) from None
