"""Geometric augmentation of an image together with everything that is known about it.

As in the EMUFormer paper (arXiv 2402.10580, Sec. IV): random scaling, random crop, horizontal flip.
The functions are pure; `Augmentation` draws their arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from emu_perception.data.photometric import Photometric
from emu_perception.data.sample import Sample
from emu_perception.prediction import UNLABELLED
from emu_perception.tasks import TASKS

IMAGENET_MEAN_RGB = (124, 116, 104)
"""The ImageNet mean in 0–255: what padding is filled with, so that it is 0 after normalisation."""


def _label_maps(sample: Sample) -> dict[str, tuple[np.ndarray, int]]:
    """Maps resampled by nearest neighbour (no class or depth that is not in the data), and their
    fill."""
    fills = {task.field: task.unknown for task in TASKS.values()} | {"odd": UNLABELLED}
    found = {name: (sample.get(name), fill) for name, fill in fills.items()}
    return {name: pair for name, pair in found.items() if pair[0] is not None}


def _nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by nearest neighbour between pixel centres (OpenCV's INTER_NEAREST is half a pixel
    off)."""
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(np.intp)
    return values[rows].take(columns, axis=1)


def _of_images(sample: Sample, change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """The image and its neighbours, changed alike."""
    changes: dict[str, Any] = {"image": change(sample.image)}
    if sample.neighbours is not None:
        changes["neighbours"] = tuple(change(each) for each in sample.neighbours)
    return changes


def resize(sample: Sample, height: int, width: int) -> Sample:
    """The same view at another size: depth keeps its metres, the intrinsics follow the pixels."""
    if (height, width) == sample.size:
        return sample
    smaller = height * width < sample.size[0] * sample.size[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    changes = _of_images(sample, lambda x: cv2.resize(x, (width, height), interpolation=how))
    for name, (values, _) in _label_maps(sample).items():
        changes[name] = _nearest(values, height, width)
    if sample.intrinsics is not None:
        changes["intrinsics"] = sample.intrinsics.resized(width, height)
    return sample.having(changes)


def crop(
    sample: Sample,
    top: int,
    left: int,
    height: int,
    width: int,
    fill: tuple[int, int, int] = IMAGENET_MEAN_RGB,
) -> Sample:
    """A window of the sample; what lies outside the image is `fill` and carries no labels."""
    window_rows = slice(max(top, 0), max(min(top + height, sample.size[0]), 0))
    window_columns = slice(max(left, 0), max(min(left + width, sample.size[1]), 0))
    inner = (
        slice(window_rows.start - top, window_rows.stop - top),
        slice(window_columns.start - left, window_columns.stop - left),
    )

    def cut(values: np.ndarray, padding: object) -> np.ndarray:
        window = values[window_rows, window_columns]
        if window.shape[:2] == (height, width):
            return np.ascontiguousarray(window)
        out = np.empty((height, width, *values.shape[2:]), values.dtype)
        out[...] = padding
        out[inner] = window
        return out

    changes = _of_images(sample, lambda x: cut(x, fill))
    for name, (values, fill_value) in _label_maps(sample).items():
        changes[name] = cut(values, fill_value)
    if sample.intrinsics is not None:
        changes["intrinsics"] = sample.intrinsics.cropped(left, top, width, height)
    return sample.having(changes)


def flip(sample: Sample) -> Sample:
    """The sample mirrored left to right; the x component of directions changes its sign."""
    changes = _of_images(sample, lambda x: np.ascontiguousarray(x[:, ::-1]))
    for name, (values, _) in _label_maps(sample).items():
        changes[name] = np.ascontiguousarray(values[:, ::-1])
    for task in TASKS.values():
        if task.kind == "direction" and task.field in changes:
            changes[task.field] *= np.array([-1, 1, 1], np.float32)
    if sample.motions is not None:
        mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
        changes["motions"] = mirror @ sample.motions @ mirror
    if sample.intrinsics is not None:
        changes["intrinsics"] = sample.intrinsics.flipped()
    return sample.having(changes)


@dataclass(frozen=True)
class Augmentation:
    """Random scaling, crop and mirror, and optionally a photometric change of the image."""

    size: tuple[int, int]
    """Height and width of the crop."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the scale, drawn uniformly."""
    flip_probability: float = 0.5
    scale_changes: Literal["camera", "nothing"] = "camera"
    """Meaning of scaling an image by s. `camera`: a focal length s times as long, so depth keeps
    its metres and the intrinsics follow; where they are unknown the camera is the same one and the
    scene s times as near: depth is divided by s. `nothing`: depth stays as it is and no camera is
    passed on, as in the papers whose networks know of no camera."""
    fill: tuple[int, int, int] = IMAGENET_MEAN_RGB
    """RGB of the padding where the scaled image is smaller than the crop."""
    photometric: Photometric | None = None
    """Change of colour, sharpness and noise of the image; None = none."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be a range of positive numbers, got {low}–{high}")
        if min(self.size) < 1:
            raise ValueError(f"the crop must be at least 1 x 1, got {self.size}")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability must be in [0, 1], got {self.flip_probability}")
        if self.scale_changes not in ("camera", "nothing"):
            raise ValueError(
                f"scale_changes must be 'camera' or 'nothing', got '{self.scale_changes}'"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """An augmented sample of `size`; the same generator state gives the same result."""
        scale = rng.uniform(*self.scale)
        height, width = (max(round(side * scale), 1) for side in sample.size)
        top, left = (
            int(rng.integers(min(0, have - want), max(0, have - want) + 1))
            for have, want in zip((height, width), self.size)
        )
        mirrored = rng.random() < self.flip_probability

        if self.scale_changes == "nothing":
            sample = replace(sample, intrinsics=None)
        elif sample.intrinsics is None and sample.depth is not None:
            sample = replace(sample, depth=sample.depth / np.float32(scale))
        sample = crop(resize(sample, height, width), top, left, *self.size, self.fill)
        if mirrored:
            sample = flip(sample)
        if self.photometric is not None:
            sample = replace(sample, image=self.photometric(sample.image, rng))
        return sample
