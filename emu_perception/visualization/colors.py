"""Colour maps and overlays of predictions."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from emu_perception.labels import LabelSet

COLORMAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
    "plasma": cv2.COLORMAP_PLASMA,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "gray": None,
}
"""Colour maps by name; a trailing `_r` reverses one."""


@cache
def colormap_table(name: str, invalid: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """`(256, 3)` uint8 RGB: entry 0 is `invalid`, entries 1 … 255 run through the colour map.

    Raises:
        ValueError: no colour map has this name.
    """
    base = name.removesuffix("_r")
    if base not in COLORMAPS:
        raise ValueError(
            f"unknown colour map '{name}': use one of {', '.join(COLORMAPS)}, with _r for reversed"
        )
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    code = COLORMAPS[base]
    table = np.repeat(ramp, 3, axis=1)
    if code is not None:
        table = cv2.applyColorMap(ramp, code)[:, 0, ::-1].copy()
    if name.endswith("_r"):
        table[1:] = table[:0:-1].copy()
    table[0] = invalid
    table.flags.writeable = False
    return table


def _look_up(ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    if ids.size == 0:
        return np.zeros((*ids.shape, 3), np.uint8)
    # Several times faster than table[ids].
    return cv2.applyColorMap(np.ascontiguousarray(ids), np.ascontiguousarray(table[:, None, :]))


def colorize_labels(labels: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """Class ids `(H, W)` uint8 in their colours, `(H, W, 3)` uint8 RGB; black without a class."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be (H, W) uint8, got {labels.shape} {labels.dtype}")
    return _look_up(labels, label_set.palette)


def colorize_scalar(
    values: np.ndarray,
    vmin: float,
    vmax: float,
    colormap: str = "turbo",
    invalid: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """A map of numbers `(H, W)` in colours, `(H, W, 3)` uint8 RGB.

    Values outside `[vmin, vmax]`, infinite ones too, take the colour of the nearer end; NaN takes
    `invalid`.
    """
    if values.ndim != 2:
        raise ValueError(f"values must be (H, W), got {values.shape}")
    if not (np.isfinite(vmin) and np.isfinite(vmax) and vmin < vmax):
        raise ValueError(f"the range must be finite with vmin < vmax, got {vmin} … {vmax}")
    levels = np.clip(values, vmin, vmax) - np.float32(vmin)
    levels *= np.float32(254.0 / (vmax - vmin))
    # Entry 0 is kept for NaN, hence 1 … 255; the half rounds.
    levels += np.float32(1.5)
    np.copyto(levels, 0, where=np.isnan(levels))
    return _look_up(levels.astype(np.uint8), colormap_table(colormap, invalid))


def overlay(
    image: np.ndarray, labels: np.ndarray, label_set: LabelSet, alpha: float = 0.5
) -> np.ndarray:
    """The image with its classes' colours mixed in; pixels without a class stay as they are.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` uint8 class ids.
        alpha: weight of the class colours, 0–1.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"image {image.shape[:2]} and labels {labels.shape} differ in size")
    if image.size == 0:
        return image.copy()
    colors = colorize_labels(labels, label_set)
    mixed = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0)
    unlabelled = (labels >= len(label_set)).view(np.uint8)
    cv2.copyTo(image, unlabelled, mixed)
    return mixed
