"""Where classes meet: an uncertainty that needs no model, and a place where calibration suffers."""

from __future__ import annotations

import cv2
import numpy as np

from emu_perception.prediction import UNLABELLED

_NEIGHBOURS = np.ones((3, 3), np.uint8)


def boundary(labels: np.ndarray) -> np.ndarray:
    """Pixels that have a neighbour (of eight) of another class.

    Unlabelled pixels are no class: they neither make a boundary nor hide one beside them.

    Args:
        labels: `(H, W)` uint8.

    Returns:
        uint8 `(H, W)`, 1 on a boundary, else 0.
    """
    # 255 is the largest id, so it never wins the minimum; for the maximum it must be the smallest.
    without_void = np.where(labels == UNLABELLED, np.uint8(0), labels)
    largest, smallest = cv2.dilate(without_void, _NEIGHBOURS), cv2.erode(labels, _NEIGHBOURS)
    return (largest > smallest).view(np.uint8)


def near_boundary(labels: np.ndarray, distance: int) -> np.ndarray:
    """bool `(H, W)`: at most `distance` rows and columns away from a `boundary` pixel."""
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    return cv2.dilate(boundary(labels), square).view(bool)


def boundary_proximity(labels: np.ndarray) -> np.ndarray:
    """1 / (1 + distance in pixels to the nearest `boundary` pixel).

    Returns:
        float32 `(H, W)` in [0, 1]: 1 on a boundary, 0 where the image has none.
    """
    edges = boundary(labels)
    if not edges.any():
        return np.zeros(labels.shape, np.float32)
    distance = cv2.distanceTransform(1 - edges, cv2.DIST_L2, 3)
    distance += 1
    return np.reciprocal(distance, out=distance)
