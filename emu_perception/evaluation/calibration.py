"""Expected calibration error, streaming: how far confidence is from accuracy.

Equal-width bins are (k/10, (k+1)/10] as in Guo et al. (ICML 2017), with exact sums of confidence.
Equal-mass bins are cut from the `ranking.BINS` logarithmic bins of 1 − confidence; taking a bin's
centre for its pixels changes the error by at most 1/512 of the mean 1 − confidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from emu_perception.evaluation.ranking import bin_centers
from emu_perception.evaluation.sums import Sums, ratio, ratios

BINS = 10


def width_bins(confidence: np.ndarray) -> np.ndarray:
    """uint16 equal-width bin of each value in [0, 1]; an edge belongs to the bin below it."""
    scaled = np.ceil(confidence * np.float32(BINS))
    return np.clip(scaled - 1, 0, BINS - 1, out=scaled).astype(np.uint16)


def expected_calibration_error(
    counts: np.ndarray, confidences: np.ndarray, correct: np.ndarray
) -> float | None:
    """Σ_b |Σ confidence − Σ correct| / N over bins (any shape), None without pixels."""
    return ratio(np.abs(confidences - correct).sum(), counts.sum())


def reliability(
    counts: np.ndarray, confidences: np.ndarray, correct: np.ndarray
) -> list[dict[str, float]]:
    """The points of a reliability diagram, empty bins left out."""
    total = counts.sum()
    return [
        {"confidence": float(c / n), "accuracy": float(k / n), "fraction": float(n / total)}
        for n, c, k in zip(counts, confidences, correct)
        if n
    ]


def equal_mass(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, summed confidences and correct pixels of ten bins that hold equally many pixels.

    Args:
        histogram: `(bins, 2)` correct and wrong pixels by rising 1 − confidence. Pixels of one
            bin are told apart by nothing, so a bin that straddles a cut is shared out evenly.
    """
    totals = histogram.sum(axis=1)
    edges = np.concatenate([[0.0], np.cumsum(totals)])
    cuts = np.linspace(0, edges[-1], BINS + 1)

    def shares(values: np.ndarray) -> np.ndarray:
        return np.diff(np.interp(cuts, edges, np.concatenate([[0.0], np.cumsum(values)])))

    confidence = 1 - np.minimum(bin_centers(len(totals)), 1.0)
    return np.diff(cuts), shares(totals * confidence), shares(histogram[:, 0])


def classwise_sums(rows: Iterable[np.ndarray], labels: np.ndarray, classes: int) -> Sums:
    """Sums of the class-wise calibration error (Kull et al., NeurIPS 2019, Eq. 4).

    Most of C·N probabilities are small, so only those above 1/10 are binned one by one; the
    lowest bin is what they leave of the totals.

    Args:
        rows: the probabilities of each class in turn, `(N,)` float32.
        labels: `(N,)` true classes, all in [0, C).
        classes: C.
    """
    counts = np.zeros((classes, BINS))
    confidences = np.zeros((classes, BINS))
    correct = np.zeros((classes, BINS))
    for c, row in enumerate(rows):
        above = np.flatnonzero(row > np.float32(1 / BINS))
        values = row[above]
        bins = width_bins(values)
        counts[c] = np.bincount(bins, minlength=BINS)
        confidences[c] = np.bincount(bins, values, minlength=BINS)
        correct[c] = np.bincount(bins, labels[above] == c, minlength=BINS)
        counts[c, 0] += row.size - len(above)
        confidences[c, 0] += float(row.sum()) - confidences[c].sum()
    missing = np.bincount(labels, minlength=classes) - correct.sum(axis=1)
    correct[:, 0] += missing
    return {"classwise": np.stack([counts, confidences, correct])}


def classwise_error(sums: Sums) -> float | None:
    """Mean over classes of the calibration error of that class's probability."""
    counts, confidences, correct = sums["classwise"]
    errors = ratios(np.abs(confidences - correct).sum(axis=1), counts.sum(axis=1))
    return None if np.isnan(errors).all() else float(np.nanmean(errors))


def regression_reliability(
    counts: np.ndarray, squared_errors: np.ndarray, points: int = BINS
) -> list[dict[str, Any]]:
    """Root mean predicted variance against RMSE in bins of equal mass (Levi et al., 2022).

    Args:
        counts, squared_errors: `(bins,)` by rising variance, quantised by `ranking.quantise`.
    """
    edges = np.concatenate([[0.0], np.cumsum(counts)])
    if not edges[-1]:
        return []
    cuts = np.linspace(0, edges[-1], points + 1)

    def means(values: np.ndarray) -> np.ndarray:
        at_cuts = np.interp(cuts, edges, np.concatenate([[0.0], np.cumsum(values)]))
        return np.diff(at_cuts) / np.diff(cuts)

    deviations = np.sqrt(means(counts * bin_centers(len(counts))))
    errors = np.sqrt(means(squared_errors))
    return [
        {"predicted_std": float(d), "rmse": float(e), "fraction": 1 / points}
        for d, e in zip(deviations, errors)
    ]


def normalized_calibration_error(points: list[dict[str, Any]]) -> float | None:
    """ENCE: mean over the bins of |RMSE − predicted deviation| / predicted deviation."""
    pairs = [(point["rmse"], point["predicted_std"]) for point in points]
    gaps = [abs(rmse - predicted) / predicted for rmse, predicted in pairs if predicted]
    return sum(gaps) / len(gaps) if gaps else None
