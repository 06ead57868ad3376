"""The state behind every metric: named sums.

Each metric module has one function that turns a frame into sums and one that turns sums into
figures. Sums add up, so a data set's state is as large as a frame's, two processes merge by
addition, and a bootstrap replicate is a weighted sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import cv2
import numpy as np

Sums: TypeAlias = dict[str, np.ndarray]
"""float64 arrays (0-dimensional ones too) by name."""


def add(total: Sums, other: Mapping[str, np.ndarray]) -> None:
    """Add `other` to `total` in place; a name that `total` lacks starts at zero."""
    for name, value in other.items():
        if name in total:
            total[name] += value
        else:
            total[name] = np.array(value, np.float64)


def ratio(numerator: float | np.ndarray, denominator: float | np.ndarray) -> float | None:
    """The quotient of two scalars, None where the denominator is 0 (nothing was counted)."""
    return float(numerator) / float(denominator) if denominator else None


def ratios(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise quotients, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator != 0, numerator / denominator, np.nan)


def optional_mean(values: np.ndarray) -> float | None:
    """Mean of the values that are not NaN, None if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def logarithm(values: np.ndarray) -> np.ndarray:
    """Natural logarithm of `(N,)` positive float32; OpenCV's takes a fifth of NumPy's time."""
    return cv2.log(values.reshape(1, -1)).reshape(-1) if values.size else values
