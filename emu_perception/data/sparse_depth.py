"""Driving images with sparse metric depth (projected LiDAR points) and known cameras."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

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
from emu_perception.data.splits import (
    choose_split,
    hold_out,
    tail,
)

_PER_METRE = 256


@register_dataset("ddad", splits=("all",), evaluation_split="val")
@register_dataset("sparse_depth", splits=("all",), evaluation_split="val")
def build_sparse_depth(
    root: Path,
    *,
    split: str,
    held_out: str | None = None,
    calibration_fraction: float = 0.0,
    max_depth: float | None = 200.0,
) -> FileDataset:
    """Folders `images` and `depth` (16-bit PNG, metres × 256) with `intrinsics.json`.

    A name without its last `_part` is the camera, which serves as the clip: CAMERA_01_2 is frame 2
    of CAMERA_01. `intrinsics.json` maps each name to [fx, fy, cx, cy].

    Args:
        root: the folder.
        split: `all`; `train` and `val`: the other cameras and the held-out one (without `held_out`
            both are all images); `calibration`: see below.
        held_out: the camera that `train` leaves out.
        calibration_fraction: the last fraction of each training camera's frames, left out of
            `train`.
        max_depth: metres; points from here on count as none.
    """
    images = files.list_files(root / "images")
    depth = files.list_files(root / "depth", (".png",))
    files.require_items(list(images), root / "images", "images")
    items = [
        Item(
            name,
            name.rpartition("_")[0] or name,
            image,
            depth=depth.get(name, root / "depth" / f"{name}.png"),
            camera=root / "intrinsics.json",
        )
        for name, image in images.items()
    ]
    others, held = hold_out(items, held_out, root)
    train, calibration = tail(others, calibration_fraction, group=lambda item: item.clip)
    known = {
        "train": train,
        "val": held if held_out else items,
        "all": items,
        "calibration": calibration,
    }
    return FileDataset(
        choose_split(split, known, root),
        Readers(depth=partial(_read_depth, max_depth=max_depth), intrinsics=_read_intrinsics),
        problems=[
            Problem(str(path), "there is no image of this name")
            for path in files.unmatched(images, depth)
        ],
    )


def _read_depth(item: Item, max_depth: float | None) -> np.ndarray:
    assert item.depth is not None
    return files.read_depth(item.depth, _PER_METRE, max_depth)


@lru_cache(maxsize=8)
def _cameras(path: Path) -> dict[str, Any]:
    return files.read_json(path)


def _read_intrinsics(item: Item, size: tuple[int, int]) -> Intrinsics:
    path = item.camera
    assert path is not None
    values = _cameras(path).get(item.name)
    if not (
        isinstance(values, list)
        and len(values) == 4
        and all(isinstance(v, (int, float)) for v in values)
        and min(values[:2]) > 0
    ):
        raise DataError.at(
            path,
            f"entry '{item.name}' is not [fx, fy, cx, cy] with positive fx and fy: {values}",
        )
    fx, fy, cx, cy = map(float, values)
    return Intrinsics(fx, fy, cx, cy, width=size[1], height=size[0])
