"""The preprocessed arrays of MTAN, on which XTasC-Net and MTPSL are measured.

Liu et al., "End-to-End Multi-Task Learning with Attention" (CVPR 2019): `train` and `val`, each
with folders of `0.npy`, `1.npy`, …: `image` `(H, W, 3)` in [0, 1], labels `(H, W)` with −1 =
unlabelled, `depth` `(H, W, 1)` with 0 = none, `normal` `(H, W, 3)`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.data import files
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import (
    FileDataset,
    Item,
    Problem,
    Readers,
)
from emu_perception.data.sample import DataError
from emu_perception.labels import load_label_set

_CITYSCAPES = {7: "cityscapes_7", 19: "cityscapes"}


@register_dataset("mtan_nyuv2", splits=("train", "val"), evaluation_split="val")
def build_mtan_nyuv2(root: Path, *, split: str) -> FileDataset:
    """MTAN's NYUv2 at 288 × 384: 13 classes, depth in metres, normals.

    Normals are as the arrays hold them: x points to the right, the signs of y and z are the
    preprocessing's own.
    """
    return _build(root, split, "label", "nyuv2_13", inverse_depth=False, normals=True)


@register_dataset("mtan_cityscapes", splits=("train", "val"), evaluation_split="val")
def build_mtan_cityscapes(root: Path, *, split: str, classes: int = 7) -> FileDataset:
    """MTAN's Cityscapes at 128 × 256: 7 or 19 classes and inverse depth.

    The arrays hold disparity, scaled to [0, 1]. `Sample.depth` is 1 / value, so that the inverse
    depth on which the papers report errors is 1 / depth, exactly; it is not in metres.
    """
    if classes not in _CITYSCAPES:
        raise ValueError(f"mtan_cityscapes has 7 or 19 classes, not {classes}")
    folder = f"label_{classes}" if (root / split / f"label_{classes}").is_dir() else "label"
    return _build(root, split, folder, _CITYSCAPES[classes], inverse_depth=True, normals=False)


def _build(
    root: Path, split: str, label_folder: str, label_set: str, *, inverse_depth: bool, normals: bool
) -> FileDataset:
    if split not in ("train", "val"):
        raise DataError.at(root, f"has no split '{split}'; it has train, val")
    folder = root / split
    parts = {"labels": label_folder, "depth": "depth"} | ({"normals": "normal"} if normals else {})
    images = files.list_files(folder / "image", (".npy",))
    files.require_items(list(images), folder / "image", ".npy files")
    others = {part: files.list_files(folder / name, (".npy",)) for part, name in parts.items()}
    items = [
        Item(
            f"{split}_{name}",
            f"{split}_{name}",  # the images' sequences are not known
            image,
            **dict[str, Any](
                (part, there.get(name, folder / parts[part] / f"{name}.npy"))
                for part, there in others.items()
            ),
        )
        for name, image in sorted(images.items(), key=lambda entry: _number(entry[1]))
    ]
    classes = load_label_set(label_set)
    return FileDataset(
        items,
        Readers(
            image=_read_image,
            labels=partial(_read_labels, class_count=len(classes)),
            depth=partial(_read_depth, inverse=inverse_depth),
            normals=_read_normals,
        ),
        classes,
        [
            Problem(str(path), "there is no image of this name")
            for there in others.values()
            for path in files.unmatched(images, there)
        ],
    )


def _number(path: Path) -> int:
    if not path.stem.isdigit():
        raise DataError.at(path, "is not named by a number")
    return int(path.stem)


def _read_array(path: Path, channels: int) -> np.ndarray:
    """`(H, W)` or `(H, W, channels)` numbers, finite."""
    files.read_bytes(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError.at(path, f"is not a NumPy array: {error}") from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != (2 if channels == 1 else 3) or (channels > 1 and array.shape[2] != channels):
        raise DataError.at(path, f"has shape {array.shape}, expected (H, W, {channels})")
    if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
        raise DataError.at(path, f"{array.dtype} values are not all finite numbers")
    return array


def _read_image(path: Path) -> np.ndarray:
    array = _read_array(path, 3)
    if array.min() < -1e-3 or array.max() > 1 + 1e-3:
        raise DataError.at(path, f"values run from {array.min()} to {array.max()}, expected [0, 1]")
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def _read_labels(item: Item, class_count: int) -> np.ndarray:
    path = item.labels
    assert path is not None
    array = np.rint(_read_array(path, 1)).astype(np.int64)
    if array.min() < -1:
        raise DataError.at(path, f"label ids run down to {array.min()}; −1 is unlabelled")
    table = files.LabelTable.of_classes(class_count)
    return table.apply(np.where(array < 0, 255, array), path)


def _read_depth(item: Item, inverse: bool) -> np.ndarray:
    assert item.depth is not None
    array = _read_array(item.depth, 1).astype(np.float32)
    if array.min() < 0:
        raise DataError.at(item.depth, f"depth runs down to {array.min()}, expected ≥ 0")
    if inverse:
        return np.where(array > 0, 1 / np.where(array > 0, array, 1), 0).astype(np.float32)
    return array


def _read_normals(item: Item) -> np.ndarray:
    assert item.normals is not None
    array = _read_array(item.normals, 3).astype(np.float32)
    length = np.linalg.norm(array, axis=-1, keepdims=True)
    return np.where(length > 1e-3, array / np.maximum(length, 1e-3), 0).astype(np.float32)
