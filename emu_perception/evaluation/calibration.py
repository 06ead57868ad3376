"""Expected calibration error, streaming: how far confidence is from accuracy.

Equal-width bins are (k/10, (k+1)/10] as in Guo et al. (ICML 2017), with exact sums of confidence.
Equal-mass bins are cut from the `ranking.BINS` logarithmic bins of 1 − confidence; taking a bin's
centre for its pixels changes the error by at most 1/512 of the mean 1 − confidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation.ranking import bin_centers, split_count, weighted_count
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
            bin cannot be distinguished, so a bin that straddles a cut is shared out evenly.
    """
    totals = histogram.sum(axis=1)
    edges = np.concatenate([[0.0], np.cumsum(totals)])
    cuts = np.linspace(0, edges[-1], BINS + 1)

    def shares(values: np.ndarray) -> np.ndarray:
        return np.diff(np.interp(cuts, edges, np.concatenate([[0.0], np.cumsum(values)])))

    confidence = 1 - np.minimum(bin_centers(len(totals)), 1.0)
    return np.diff(cuts), shares(totals * confidence), shares(histogram[:, 0])


def classwise_sums(
    probabilities: np.ndarray, truth: np.ndarray, labelled: np.ndarray | None
) -> Sums:
    """Sums of the class-wise calibration error (Kull et al., NeurIPS 2019, Eq. 4).

    Most of C·N probabilities are small, so only those above 1/10 are binned one by one; the
    lowest bin is what they leave of the totals.

    Args:
        probabilities: `(C, N)` float32 of all pixels.
        truth: `(N,)` true classes; any number where there is no label.
        labelled: `(N,)` bool; None where all are.
    """
    classes = len(probabilities)
    counts = np.zeros((classes, BINS))
    confidences = np.zeros((classes, BINS))
    correct = np.zeros((classes, BINS))
    without = None if labelled is None else np.flatnonzero(~labelled)
    pixels = truth.size if without is None else truth.size - len(without)
    for c, row in enumerate(probabilities):
        high = row > np.float32(1 / BINS)
        total, own = float(row.sum()), truth == c
        if labelled is not None:
            high &= labelled
            own &= labelled
            total -= float(row.take(without).sum())
        above = np.flatnonzero(high)
        values = row.take(above)
        bins = width_bins(values)
        pairs = split_count(bins, own.take(above), BINS)
        counts[c], correct[c] = pairs.sum(axis=1), pairs[:, 1]
        confidences[c] = weighted_count(bins, values, BINS)
        counts[c, 0] += pixels - len(above)
        confidences[c, 0] += total - confidences[c].sum()
        correct[c, 0] += np.count_nonzero(own) - correct[c].sum()
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
