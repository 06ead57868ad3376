"""Metrics of surface normals: the angle between predicted and true ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation.sums import Sums, ratio

WITHIN = (11.25, 22.5, 30.0)
"""Degrees; the thresholds of Eigen and Fergus (ICCV 2015)."""
BINS_PER_DEGREE = 10


def normals_sums(predicted: np.ndarray, truth: np.ndarray) -> Sums:
    """One frame.

    Args:
        predicted: `(H, W, 3)`, of any length.
        truth: `(H, W, 3)` unit vectors; (0, 0, 0) = unknown.

    Returns:
        `angles`: pixels, summed degrees, summed squares, pixels within each threshold; and
        `angle_counts`: pixels by tenth of a degree.
    """
    known = np.einsum("hwc,hwc->hw", truth, truth) > 0.5
    p, t = predicted[known].astype(np.float64), truth[known].astype(np.float64)
    # The arc tangent is exact for small angles too, where the arc cosine is not.
    angles = np.degrees(
        np.arctan2(np.linalg.norm(np.cross(p, t), axis=1), np.einsum("nc,nc->n", p, t))
    )
    within = [np.count_nonzero(angles < limit) for limit in WITHIN]
    bins = np.minimum((angles * BINS_PER_DEGREE).astype(np.int64), 180 * BINS_PER_DEGREE - 1)
    return {
        "angles": np.array([len(angles), angles.sum(), np.square(angles).sum(), *within]),
        "angle_counts": np.bincount(bins, minlength=180 * BINS_PER_DEGREE).astype(np.float64),
    }


def headline(sums: Sums) -> dict[str, float | None]:
    """The figures that also get confidence intervals."""
    pixels, total, _, *within = sums["angles"]
    shares = {f"within_{limit:g}": ratio(n, pixels) for limit, n in zip(WITHIN, within)}
    return {"mean_angular_error": ratio(total, pixels), **shares}


def normals_values(sums: Sums) -> dict[str, Any]:
    """All figures of the data set, angles in degrees."""
    pixels, _, squares, *_ = sums["angles"]
    mean_square = ratio(squares, pixels)
    below = np.cumsum(sums["angle_counts"])
    median = int(np.searchsorted(below, below[-1] / 2)) / BINS_PER_DEGREE
    return {
        "pixels": int(pixels),
        "median_angular_error": median if pixels else None,
        "rms_angular_error": None if mean_square is None else mean_square**0.5,
    } | headline(sums)
