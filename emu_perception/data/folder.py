"""A folder of own images with any of class labels, depth maps and cameras.

`images/` holds the images; `labels/` (8-bit PNG of class ids) and `depth/` (16-bit PNG) hold files
of the same names; `intrinsics.json` maps image name, or `all`, to [fx, fy, cx, cy] in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import cv2
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
from emu_perception.data.wrappers import label_id
from emu_perception.labels import LabelSet, load_label_set
from emu_perception.prediction import UNLABELLED

CAMERAS = "intrinsics.json"
EVERY_IMAGE = "all"
"""Key of the camera that all images share."""


@register_dataset("folder", splits=("all",), evaluation_split="all")
def build_folder(
    root: Path,
    *,
    split: str = "all",
    label_set: str | None = None,
    mapping: Mapping[str | int, str | Sequence[str] | None] | None = None,
    depth_scale: float = 1 / 256,
    max_depth: float | None = None,
    stretch: tuple[int, int] | None = None,
    pattern: str | Sequence[str] | None = None,
    every: int = 1,
    camera: tuple[float, float, float, float] | None = None,
    labels: str = "labels",
    depth: str = "depth",
    images: str = "images",
) -> FileDataset:
    """Own images, with any of class labels, depth maps and cameras.

    Args:
        root: holds `images`, and any of `labels`, `depth` and `intrinsics.json`.
        split: `all`; choose images with `pattern`.
        label_set: name or YAML file of the classes; needed where there are labels.
        mapping: id in the files -> class name, several class names (the label is one of them, it is
            not known which), or null (unlabelled). Without it, ids are those of `label_set`. Ids
            that are not mapped are errors; 255 is always unlabelled.
        depth_scale: metres per unit of the depth files; 0 means no depth.
        max_depth: metres; depth from here on counts as none.
        stretch: height and width that images, labels and depth are resized to first; the intrinsics
            are those of this size.
        pattern: names to take, without suffix: wildcards (`aachen_*`) or ranges in sorted order
            (`0001..0500`, both ends included); several are added up.
        every: take every n-th of these images.
        camera: fx, fy, cx, cy in pixels of all images that `intrinsics.json` does not name.
        labels, depth, images: names of the folders.
    """
    if split != "all":
        raise ValueError(f"a folder has the split 'all' only, got '{split}'; use option pattern")
    if every < 1 or depth_scale <= 0:
        raise ValueError(f"every and depth_scale must be positive, got {every} and {depth_scale}")
    found = files.list_files(root / images)
    files.require_items(list(found), root / images, "images")
    chosen = [name for name in found if _matches(name, pattern)][::every]
    files.require_items(chosen, root / images, f"image that matches {pattern!r}")
    maps = {
        "labels": _optional(root / labels) if label_set is not None else {},
        "depth": _optional(root / depth),
    }
    cameras = root / CAMERAS
    known = files.read_json(cameras) if cameras.is_file() else {}
    items = [
        Item(
            name,
            name.rpartition("_")[0] or name,
            found[name],
            labels=maps["labels"].get(name),
            depth=maps["depth"].get(name),
            camera=cameras,
        )
        for name in chosen
    ]
    classes = None if label_set is None else load_label_set(label_set)
    groups: tuple[tuple[int, ...], ...] = ()
    read_labels = None
    if classes is not None:
        table, groups = _label_table(classes, mapping)
        read_labels = partial(_read_labels, table=table, stretch=stretch)
    return FileDataset(
        items,
        Readers(
            image=partial(_read_image, stretch=stretch),
            labels=read_labels,
            depth=partial(_read_depth, scale=depth_scale, limit=max_depth, stretch=stretch),
            intrinsics=partial(_read_camera, known=known, default=camera),
        ),
        classes,
        [
            Problem(str(path), "there is no image of this name")
            for paths in maps.values()
            for path in files.unmatched(found, paths)
        ],
        groups,
    )


def _matches(name: str, pattern: str | Sequence[str] | None) -> bool:
    if pattern is None:
        return True
    for each in (pattern,) if isinstance(pattern, str) else pattern:
        first, dots, last = each.partition("..")
        if (first <= name <= last) if dots else fnmatchcase(name, each):
            return True
    return False


def _optional(folder: Path) -> dict[str, Path]:
    return files.list_files(folder, (".png",)) if folder.is_dir() else {}


def _label_table(
    classes: LabelSet, mapping: Mapping[str | int, str | Sequence[str] | None] | None
) -> tuple[files.LabelTable, tuple[tuple[int, ...], ...]]:
    """The table of ids, and the coarse labels in it; ValueError for an unknown class."""
    if mapping is None:
        return files.LabelTable.of_classes(len(classes)), ()
    ids: dict[int, tuple[int, ...]] = {}
    unlabelled = {UNLABELLED}
    for key, value in mapping.items():
        own = int(key) if str(key).isdigit() else classes.names.index(_known(str(key), classes))
        names = () if value is None else (value,) if isinstance(value, str) else tuple(value)
        if names:
            ids[own] = tuple(sorted(classes.index(_known(name, classes)) for name in names))
        else:
            unlabelled.add(own)
    groups = tuple(sorted({group for group in ids.values() if len(group) > 1}))
    table = {own: label_id(group, classes, groups) for own, group in ids.items()}
    return files.LabelTable(table, unlabelled), groups


def _known(name: str, classes: LabelSet) -> str:
    if name not in classes.names:
        raise ValueError(
            f"mapping: label set '{classes.name}' has no class '{name}'; it has "
            f"{', '.join(classes.names)}"
        )
    return name


def _read_image(path: Path, stretch: tuple[int, int] | None) -> np.ndarray:
    image = files.read_image(path)
    if stretch is None or image.shape[:2] == stretch:
        return image
    return cv2.resize(image, stretch[::-1], interpolation=cv2.INTER_LINEAR)


def _read_labels(
    item: Item, table: files.LabelTable, stretch: tuple[int, int] | None
) -> np.ndarray:
    return _stretched(read_item_labels(item, table), stretch)


def _read_depth(
    item: Item, scale: float, limit: float | None, stretch: tuple[int, int] | None
) -> np.ndarray:
    assert item.depth is not None
    return _stretched(files.read_depth(item.depth, 1 / scale, limit), stretch)


def _stretched(values: np.ndarray, stretch: tuple[int, int] | None) -> np.ndarray:
    if stretch is None or values.shape[:2] == stretch:
        return values
    return cv2.resize(values, stretch[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _read_camera(
    item: Item,
    size: tuple[int, int],
    known: Mapping[str, Any],
    default: tuple[float, float, float, float] | None,
) -> Intrinsics | None:
    """The image's own camera, else the one of all images, else the default."""
    values = known.get(item.name, known.get(EVERY_IMAGE, default and list(default)))
    if values is None:
        return None
    if not (
        isinstance(values, list)
        and len(values) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        and min(values[:2]) > 0
    ):
        raise DataError.at(
            item.camera or item.image,
            f"entry of '{item.name}' is not [fx, fy, cx, cy] with positive fx and fy: {values}",
        )
    fx, fy, cx, cy = map(float, values)
    return Intrinsics(fx, fy, cx, cy, width=size[1], height=size[0])
