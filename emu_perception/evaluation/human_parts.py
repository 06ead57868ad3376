"""Metrics of human parts: intersection over union of each part."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation.semantic import confusion_matrix
from emu_perception.evaluation.sums import Sums, optional_mean, ratios
from emu_perception.labels import HUMAN_PARTS


def parts_sums(predicted: np.ndarray, truth: np.ndarray) -> Sums:
    """One frame.

    Args:
        predicted: `(H, W)` uint8, index in `HUMAN_PARTS`.
        truth: likewise, 255 = unknown.

    Returns:
        `part_counts`: `(3, 7)` pixels hit, true and predicted, of those with a truth.
    """
    confusion = confusion_matrix(truth, predicted, len(HUMAN_PARTS))
    hits = np.diag(confusion)
    return {"part_counts": np.stack([hits, confusion.sum(1), confusion[:, :-1].sum(0)])}


def headline(sums: Sums) -> dict[str, float | None]:
    """The mean over parts that occur, which also gets a confidence interval."""
    return {"miou": optional_mean(_ious(sums))}


def parts_values(sums: Sums) -> dict[str, Any]:
    """All figures of the data set."""
    ious = (None if np.isnan(iou) else float(iou) for iou in _ious(sums))
    return headline(sums) | {"class_iou": dict(zip(HUMAN_PARTS, ious, strict=True))}


def _ious(sums: Sums) -> np.ndarray:
    hits, true, predicted = sums["part_counts"]
    return ratios(hits, true + predicted - hits)
