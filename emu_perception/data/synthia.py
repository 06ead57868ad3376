"""SYNTHIA-RAND-CITYSCAPES: rendered street images with Cityscapes' classes and depth.

Ros et al., "The SYNTHIA Dataset" (CVPR 2016): `RGB`, `GT/LABELS` (16-bit, class id in the first
channel) and `Depth/Depth` (16-bit, centimetres), files of the same name.
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
)
from emu_perception.data.splits import choose_split, tail
from emu_perception.labels import load_label_set

# SYNTHIA's id -> Cityscapes' training id, as in the literature on domain adaptation: void, parking,
# road work and lane markings have no counterpart. Terrain, truck and train never occur.
_CLASSES = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11,
            17: 12, 8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18}  # fmt: skip
_VOID = (0, 13, 14, 22)
_PER_METRE = 100
# The renderer's camera, given with SYNTHIA's video sequences for the same image size.
_CAMERA = Intrinsics(532.740352, 532.740352, 640, 380, 1280, 760)


@register_dataset("synthia", splits=("train", "val"), evaluation_split="val")
def build_synthia(
    root: Path, *, split: str, val_fraction: float = 0.2, max_depth: float | None = None
) -> FileDataset:
    """Rendered street images with Cityscapes' classes (16 of 19 occur), dense depth and intrinsics.

    Args:
        root: holds `RGB`, `GT/LABELS` and `Depth/Depth` (or `Depth`).
        split: `train` or `val`.
        val_fraction: the last fraction of the images in name order.
        max_depth: metres; depth from here on counts as none. The sky (655.35 m) always does.
    """
    depth_folder = root / "Depth" / "Depth"
    if not depth_folder.is_dir():
        depth_folder = root / "Depth"
    images = files.list_files(root / "RGB")
    files.require_items(list(images), root / "RGB", "images")
    labels = files.list_files(root / "GT" / "LABELS", (".png",))
    depth = files.list_files(depth_folder, (".png",))
    items = [
        Item(
            name,
            name,  # independent views
            image,
            labels=labels.get(name, root / "GT" / "LABELS" / f"{name}.png"),
            depth=depth.get(name, depth_folder / f"{name}.png"),
        )
        for name, image in images.items()
    ]
    train, val = tail(items, val_fraction)
    table = files.LabelTable(_CLASSES, _VOID)
    return FileDataset(
        choose_split(split, {"train": train, "val": val}, root),
        Readers(
            labels=partial(_read_labels, table=table),
            depth=partial(_read_depth, max_depth=max_depth),
            intrinsics=_read_intrinsics,
        ),
        load_label_set("cityscapes"),
        [
            Problem(str(path), "there is no image of this name")
            for others in (labels, depth)
            for path in files.unmatched(images, others)
        ],
    )


def _first_channel(path: Path) -> np.ndarray:
    """The first channel of a 16-bit image: the archives' label maps have three, depth has one or
    three."""
    stored = files.read_stored(path)
    first = stored if stored.ndim == 2 else np.ascontiguousarray(stored[..., 0])
    return files.require_type(first, path, np.uint16)


def _read_labels(item: Item, table: files.LabelTable) -> np.ndarray:
    assert item.labels is not None
    return table.apply(_first_channel(item.labels), item.labels)


def _read_depth(item: Item, max_depth: float | None) -> np.ndarray:
    assert item.depth is not None
    return files.depth_in_metres(_first_channel(item.depth), _PER_METRE, max_depth)


def _read_intrinsics(item: Item, size: tuple[int, int]) -> Intrinsics:
    return _CAMERA.resized(width=size[1], height=size[0])
