"""Metrics of saliency: the F-measure and intersection over union at the best threshold.

As the multi-task benchmarks on PASCAL-Context have it (Maninis et al., "Attentive Single-Tasking of
Multiple Tasks", CVPR 2019): precision and recall are averaged over images before they become F.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation.sums import Sums
from emu_perception.prediction import UNLABELLED

THRESHOLDS = np.linspace(0.2, 0.9, 15)


def saliency_sums(predicted: np.ndarray, truth: np.ndarray) -> Sums:
    """One frame.

    Args:
        predicted: `(H, W)` float, probability of a salient object.
        truth: `(H, W)` uint8: 1 = salient object, 0 = none, 255 = unknown.

    Returns:
        `saliency`: `(4, thresholds)`: images, precision, recall and intersection over union.
    """
    known = truth != UNLABELLED
    salient, probability = truth[known] == 1, predicted[known]
    said = probability[:, None] > THRESHOLDS
    hit = (said & salient[:, None]).sum(0)
    tiny = 1e-12
    union = said.sum(0) + salient.sum() - hit
    # An image without a salient object and without a prediction of one is all right.
    overlap = np.where(union > 0, hit / np.maximum(union, 1), 1.0)
    precision, recall = hit / (said.sum(0) + tiny), hit / (salient.sum() + tiny)
    return {"saliency": np.stack([np.ones_like(precision), precision, recall, overlap])}


def headline(sums: Sums) -> dict[str, float | None]:
    """The figures that also get confidence intervals."""
    images, *totals = sums["saliency"]
    if not images.any():
        return {"max_f": None, "max_iou": None}
    precision, recall, overlap = (total / images for total in totals)
    f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {"max_f": float(f.max()), "max_iou": float(overlap.max())}


def saliency_values(sums: Sums) -> dict[str, Any]:
    """All figures of the data set."""
    return {"images": int(sums["saliency"][0, 0]), **headline(sums)}
