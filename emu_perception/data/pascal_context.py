"""PASCAL-Context with the five tasks of multi-task benchmarks.

Maninis, Radosavovic and Kokkinos, "Attentive Single-Tasking of Multiple Tasks" (CVPR 2019), in the
layout that they distribute as PASCAL_MT: classes and parts of PASCAL VOC, PASCAL-Context (Mottaghi
et al., CVPR 2014) and PASCAL-Part (Chen et al., CVPR 2014), and normals and saliency that networks
predicted.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from emu_perception.data import files
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import (
    FileDataset,
    Item,
    Problem,
    Readers,
)
from emu_perception.data.pascal_context_tables import (
    PART_OF,
    PERSON,
    WITH_NORMALS,
)
from emu_perception.data.sample import DataError
from emu_perception.labels import load_label_set

_SPLITS = ("train", "val")
_VALID_NORMALS = np.array(sorted(WITH_NORMALS.values()))


@register_dataset("pascal_context", splits=_SPLITS, evaluation_split="val")
def build_pascal_context(root: Path, *, split: str) -> FileDataset:
    """Photographs with 21 classes, normals, edges, human parts and saliency.

    Normals are as the files hold them, in axes of the network that predicted them.

    Args:
        root: holds `JPEGImages`, `ImageSets/Context`, `semseg/VOC12` and `semseg/pascal-context`,
            `pascal-context/trainval` (.mat), `human_parts` (.mat), `normals_distill` and
            `sal_distill`.
        split: `train` (4998 images) or `val` (5105).
    """
    if split not in _SPLITS:
        raise DataError.at(root, f"has no split '{split}'; it has {', '.join(_SPLITS)}")
    listing = root / "ImageSets" / "Context" / f"{split}.txt"
    names = files.read_bytes(listing).decode("utf-8").split()
    files.require_items(names, listing, "names of images")
    items, problems = [], []
    for name in names:
        semantic = [root / "semseg" / kind / f"{name}.png" for kind in ("VOC12", "pascal-context")]
        parts: dict[str, Any] = {
            "labels": next((path for path in semantic if path.is_file()), semantic[0]),
            "normals": root / "normals_distill" / f"{name}.png",
            "edges": root / "pascal-context" / "trainval" / f"{name}.mat",
            "human_parts": root / "human_parts" / f"{name}.mat",
            "saliency": root / "sal_distill" / f"{name}.png",
        }
        missing = {task for task, path in parts.items() if not path.is_file()}
        for task in sorted(missing):
            problems.append(Problem(str(parts[task]), "there is no such file", fatal=False))
        item = Item(name, name, root / "JPEGImages" / f"{name}.jpg")
        items.append(replace(item, **{t: p for t, p in parts.items() if t not in missing}))
    readers = Readers(
        labels=_read_labels,
        normals=_read_normals,
        edges=_read_edges,
        human_parts=_read_human_parts,
        saliency=_read_saliency,
    )
    return FileDataset(items, readers, load_label_set("pascal_voc"), problems)


_LABELS = files.LabelTable.of_classes(21)


def _fit(values: np.ndarray, item: Item) -> np.ndarray:
    """A map at the size of its image, by nearest neighbour: some were stored at another one."""
    file = files.open_image_file(item.image)
    size = file.width, file.height
    if (values.shape[1], values.shape[0]) == size:
        return values
    return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _read_labels(item: Item) -> np.ndarray:
    assert item.labels is not None
    # A palette image would be decoded to its colours.
    stored = _indices(item.labels)
    return _fit(_LABELS.apply(stored, item.labels), item)


def _indices(path: Path) -> np.ndarray:
    """`(H, W)` uint8 of a grey or palette image."""
    try:
        with Image.open(io.BytesIO(files.open_image_file(path).data)) as image:
            if image.mode not in ("P", "L"):
                raise DataError.at(path, f"is an image of mode {image.mode}, expected ids (P or L)")
            return np.asarray(image, np.uint8)
    except OSError as error:
        raise DataError.at(path, f"cannot be decoded as an image: {error}") from None


def _read_saliency(item: Item) -> np.ndarray:
    assert item.saliency is not None
    return _fit((_indices(item.saliency) > 127).astype(np.uint8), item)


def _read_mat(path: Path, field: str) -> Any:
    from scipy.io import loadmat

    files.read_bytes(path)
    try:
        return loadmat(str(path), squeeze_me=True, struct_as_record=False)[field]
    except KeyError:
        raise DataError.at(path, f"has no '{field}'") from None
    except Exception as error:  # of many kinds, as the file is broken
        raise DataError.at(path, f"is not a readable MATLAB file: {error}") from None


def _context(path: Path) -> np.ndarray:
    """`(H, W)` ids of the 459 classes."""
    return np.asarray(_read_mat(path, "LabelMap")).astype(np.int32)


def _read_edges(item: Item) -> np.ndarray:
    """Edges: pixels with a Laplacian of the class ids other than 0, thinned as in the benchmark."""
    assert item.edges is not None
    from skimage.morphology import thin

    changes = cv2.Laplacian(_context(item.edges).astype(np.float64), cv2.CV_64F) != 0
    return _fit(thin(changes).astype(np.uint8), item)


def _read_normals(item: Item) -> np.ndarray:
    assert item.normals is not None
    stored = files.require_type(files.read_stored(item.normals), item.normals, np.uint8, 3)
    normals = _fit(stored, item).astype(np.float32) * (2 / 255) - 1
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-6)
    if item.edges is not None:
        classes = _fit(_context(item.edges).astype(np.int16), item)
        normals[~np.isin(classes, _VALID_NORMALS)] = 0
    return normals


def _read_human_parts(item: Item) -> np.ndarray | None:
    """Parts of all persons; None for an image in which none is labelled."""
    path = item.human_parts
    assert path is not None
    parts: np.ndarray | None = None
    try:
        objects = np.atleast_1d(_read_mat(path, "anno").objects)
        for each in objects:
            if int(each.class_ind) != PERSON:
                continue
            for part in np.atleast_1d(each.parts):
                mask = np.asarray(part.mask) > 0
                parts = np.zeros(mask.shape, np.uint8) if parts is None else parts
                parts[mask] = PART_OF[str(part.part_name)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError.at(path, f"is not a file of PASCAL-Part: {error!r}") from None
    return None if parts is None else _fit(parts, item)
