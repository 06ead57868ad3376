"""Class boundaries: a model-free uncertainty, and a region where calibration is worse."""

from __future__ import annotations

import cv2
import numpy as np

_NEIGHBOURS: np.ndarray = np.ones((3, 3), np.uint8)


def boundary(labels: np.ndarray) -> np.ndarray:
    """Pixels that have a neighbour (of eight) of another class.

    Unlabelled pixels are no class: they neither make a boundary nor hide one next to them.

    Args:
        labels: `(H, W)` uint8.

    Returns:
        uint8 `(H, W)`, 1 on a boundary, else 0.
    """
    # Of bytes, 255 never wins the minimum; one higher it wraps to 0 and never wins the maximum.
    raised = labels + np.uint8(1)
    largest, smallest = cv2.dilate(raised, _NEIGHBOURS), cv2.erode(labels, _NEIGHBOURS)
    return (largest > smallest + 1).view(np.uint8)


def near_boundary(labels: np.ndarray, distance: int) -> np.ndarray:
    """bool `(H, W)`: at most `distance` rows and columns away from a `boundary` pixel."""
    square: np.ndarray = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    return cv2.dilate(boundary(labels), square).view(bool)


def boundary_proximity(labels: np.ndarray) -> np.ndarray:
    """How close the nearest `boundary` pixel is.

    Returns:
        uint8 `(H, W)`: 255 on a boundary, one less for each step along a row or column away from
        it, 0 from 255 steps on and in an image without boundary.
    """
    edges = boundary(labels)
    if not edges.any():
        return np.zeros(labels.shape, np.uint8)
    distance = cv2.distanceTransform(1 - edges, cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    return np.uint8(255) - distance.astype(np.uint8, copy=False)
