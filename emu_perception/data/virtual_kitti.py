"""Virtual KITTI 2: rendered drives with classes, depth and cameras.

Cabon et al., "Virtual KITTI 2" (arXiv 2001.10773), its archives unpacked into one folder:
`Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg`, `…/depth/…/depth_00000.png` (centimetres),
`…/classSegmentation/…/classgt_00000.png` (colours) and `Scene01/clone/intrinsic.txt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
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
)
from emu_perception.data.sample import DataError
from emu_perception.data.splits import choose_split, tail
from emu_perception.labels import LabelSet, load_label_set
from emu_perception.prediction import UNLABELLED

_PER_METRE = 100


@register_dataset("virtual_kitti_2", splits=("train", "val"), evaluation_split="val")
def build_virtual_kitti_2(
    root: Path,
    *,
    split: str,
    variations: Sequence[str] | None = None,
    cameras: Sequence[int] = (0, 1),
    val_fraction: float = 0.2,
    max_depth: float | None = None,
    sequences: bool = False,
) -> FileDataset:
    """Rendered drives with 14 classes, dense depth and intrinsics.

    Args:
        root: holds the scenes.
        split: `train` or `val`.
        variations: such as `clone`, `fog` or `15-deg-left`; None = all that are there.
        cameras: 0 = left, 1 = right.
        val_fraction: the last fraction of each scene's frames, the same for all variations and
            cameras.
        max_depth: metres; depth from here on counts as none. The sky (655.35 m) always does.
        sequences: with the frames before and after.
    """
    scenes = sorted(p for p in root.glob("Scene*") if p.is_dir())
    files.require_items(scenes, root, "Scene* folders")
    train: list[Item] = []
    val: list[Item] = []
    problems: list[Problem] = []
    for scene in scenes:
        for drive in sorted(p for p in scene.iterdir() if (p / "frames").is_dir()):
            if variations is None or drive.name in variations:
                for camera in cameras:
                    items = _list(root, drive, camera)
                    if sequences:
                        items = _with_neighbours(items)
                    problems += _unmatched(drive, camera, items)
                    first, last = tail(items, val_fraction)
                    train += first
                    val += last
    label_set = load_label_set("virtual_kitti_2")
    return FileDataset(
        choose_split(split, {"train": train, "val": val}, root),
        Readers(
            labels=partial(_read_labels, label_set=label_set),
            depth=partial(_read_depth, max_depth=max_depth),
            intrinsics=_read_intrinsics,
        ),
        label_set,
        problems,
    )


def _list(root: Path, drive: Path, camera: int) -> list[Item]:
    frames, folder = drive / "frames", f"Camera_{camera}"
    items = []
    for image in sorted((frames / "rgb" / folder).glob("rgb_*.jpg")):
        number = image.stem.removeprefix("rgb_")
        items.append(
            Item(
                name=f"{drive.parent.name}_{drive.name}_{camera}_{number}",
                # All variations and both cameras show the same place.
                clip=drive.parent.name,
                image=image,
                labels=frames / "classSegmentation" / folder / f"classgt_{number}.png",
                depth=frames / "depth" / folder / f"depth_{number}.png",
                camera=drive / "intrinsic.txt",
            )
        )
    files.require_items(items, frames / "rgb" / folder, "rgb_*.jpg")
    return items


def _with_neighbours(items: list[Item]) -> list[Item]:
    """The frames of one drive and camera, in order, with those before and after."""
    inner = zip(items, items[1:], items[2:])
    between = [replace(here, neighbours=(a.image, b.image)) for a, here, b in inner]
    return [*items[:1], *between, *items[1:][-1:]]


def _unmatched(drive: Path, camera: int, items: list[Item]) -> list[Problem]:
    expected = {path for item in items for path in (item.labels, item.depth)}
    found = [
        path
        for kind in ("classSegmentation", "depth")
        for path in sorted((drive / "frames" / kind / f"Camera_{camera}").glob("*.png"))
    ]
    return [Problem(str(p), "there is no image of this name") for p in found if p not in expected]


def _read_depth(item: Item, max_depth: float | None) -> np.ndarray:
    assert item.depth is not None
    return files.read_depth(item.depth, _PER_METRE, max_depth)


def _read_labels(item: Item, label_set: LabelSet) -> np.ndarray:
    path = item.labels
    assert path is not None
    rgb = files.require_type(files.read_stored(path), path, np.uint8, channels=3).astype(np.int32)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    labels = np.full(packed.shape, UNLABELLED, np.uint8)
    unknown = packed != 0  # black is undefined
    for class_id, (r, g, b) in enumerate(label_set.colors):
        inside = packed == (r << 16 | g << 8 | b)
        labels[inside] = class_id
        unknown &= ~inside
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise DataError.at(
            path,
            f"{np.count_nonzero(unknown)} pixels have a colour of no class, "
            f"such as RGB {tuple(rgb[row, column].tolist())} at column {column}, row {row}",
        )
    return labels


@lru_cache(maxsize=64)
def _cameras(path: Path) -> dict[tuple[int, int], tuple[float, float, float, float]]:
    """Frame and camera -> fx, fy, cx, cy."""
    cameras = {}
    lines = files.read_bytes(path).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines[1:], start=2):
        try:
            frame, camera, *values = line.split()
            fx, fy, cx, cy = map(float, values)
            cameras[int(frame), int(camera)] = (fx, fy, cx, cy)
        except ValueError:
            raise DataError.at(
                path, f"line {number} is not 'frame camera fx fy cx cy': {line!r}"
            ) from None
    return cameras


def _read_intrinsics(item: Item, size: tuple[int, int]) -> Intrinsics:
    assert item.camera is not None
    *_, camera, frame = item.name.split("_")
    values = _cameras(item.camera).get((int(frame), int(camera)))
    if values is None:
        raise DataError.at(item.camera, f"has no line for frame {int(frame)}, camera {camera}")
    fx, fy, cx, cy = values
    return Intrinsics(fx, fy, cx, cy, width=size[1], height=size[0])
