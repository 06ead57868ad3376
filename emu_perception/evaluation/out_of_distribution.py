"""Does the uncertainty find pixels of what the training data never showed?"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation import ranking
from emu_perception.evaluation.sums import Sums
from emu_perception.prediction import UNLABELLED, Prediction

SCORES = (
    "semantic_entropy",
    "semantic_epistemic",
    "depth_variance",
    "depth_epistemic",
)
"""Fields of a prediction that serve as scores, in addition to `confidence` (as 1 − confidence)."""


def out_of_distribution_sums(prediction: Prediction, mask: np.ndarray) -> Sums:
    """One frame: per available score, `(BINS, 2)` known and unknown pixels by rising score.

    A NaN (depth declared invalid) counts as the highest score.

    Args:
        mask: `(H, W)` bool or uint8; 1 = out of distribution, 0 = in distribution, 255 = ignore.
    """
    scores = {name: getattr(prediction, name) for name in SCORES}
    if prediction.confidence is not None:
        scores["confidence"] = 1 - prediction.confidence
    judged = np.flatnonzero(mask != UNLABELLED)
    unknown: np.ndarray = mask.reshape(-1).take(judged).astype(bool)
    return {
        name: ranking.split_count(ranking.quantise(score.reshape(-1).take(judged)), unknown)
        for name, score in scores.items()
        if score is not None
    }


def out_of_distribution_values(sums: Sums) -> dict[str, dict[str, Any]]:
    """AUROC, average precision and the false positive rate at 95 % recall, by score."""
    return {
        name: {
            "auroc": ranking.auroc(*histogram.T),
            "auroc_bound": ranking.auroc_bound(*histogram.T),
            "average_precision": ranking.average_precision(*histogram.T),
            "fpr95": ranking.fpr_at_tpr(*histogram.T),
            "fraction": float(histogram[:, 1].sum() / histogram.sum()) if histogram.sum() else None,
        }
        for name, histogram in sums.items()
    }
