"""Metrics of order (AUROC, average precision, AURC, sparsification) from histograms.

Exact versions sort every pixel of the data set. Here a non-negative float32 score is quantised by
the leading bits of its own representation: the bits of positive floats sort like their values, so
keeping the exponent and 8 bits of the mantissa gives 256 bins per octave, each at most 1/256 wider
than its lower edge. 40 octaves (6e-8 to 65,536) make `BINS` = 10,240 bins; what lies outside falls
into the first or last bin. Only the order of scores within one bin is lost; the functions here
take it as random, and `auroc_bound` and `area_bound` bound how much that can change a figure.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

MANTISSA_BITS = 8
OCTAVES = (-24, 16)
BINS = (OCTAVES[1] - OCTAVES[0]) << MANTISSA_BITS
_CUTS = 2.0 ** np.arange(-20, 0, 0.125)
_COPIES = 8
_FEW_BINS = 4096
_SHIFT = 23 - MANTISSA_BITS
_OFFSET = (OCTAVES[0] + 127) << MANTISSA_BITS


def quantise(scores: np.ndarray) -> np.ndarray:
    """Bins of non-negative scores; monotone.

    Args:
        scores: float32, any shape. Negative scores count as 0, NaN and infinity as the largest.

    Returns:
        uint16 bins in [0, BINS), one-dimensional.
    """
    bits = np.ascontiguousarray(scores, np.float32).reshape(-1).view(np.int32) >> _SHIFT
    bits -= _OFFSET
    return np.clip(bits, 0, BINS - 1, out=bits).astype(np.uint16)


def bin_edges(bins: int = BINS) -> np.ndarray:
    """`(bins + 1,)` float64: the scores at which the bins of a (coarser) histogram begin and end.

    The first is 0 and the last infinite, because scores out of range fall into the outer bins.
    """
    bits = (np.arange(0, BINS + 1, BINS // bins, dtype=np.int32) + _OFFSET) << _SHIFT
    edges = bits.view(np.float32).astype(np.float64)
    edges[0], edges[-1] = 0.0, np.inf
    return edges


def bin_centers(bins: int = BINS) -> np.ndarray:
    """`(bins,)` float64: a score for each bin, off by at most half a bin; 0 for the first bin."""
    edges = bin_edges(bins)
    centers = (edges[:-1] + edges[1:]) / 2
    centers[0], centers[-1] = 0.0, edges[-2]
    return centers


def count(indices: np.ndarray, size: int) -> np.ndarray:
    """`(size,)` float64: how often each index occurs.

    Args:
        indices: `(N,)` uint16. OpenCV's histogram is three times as fast as `numpy.bincount` but
            counts in float32, which is exact up to 2^24 pixels in one bin of one frame.
        size: at most 65,536.
    """
    if indices.size == 0:
        return np.zeros(size)
    copies = _COPIES if size <= _FEW_BINS else 1
    if copies > 1:
        indices = _taking_turns(indices, size, np.uint16)
    bins = copies * size
    histogram = cv2.calcHist([indices.reshape(1, -1)], [0], None, [bins], [0, bins])
    return histogram.reshape(copies, size).sum(axis=0, dtype=np.float64)


def split_count(bins: np.ndarray, flags: np.ndarray, size: int = BINS) -> np.ndarray:
    """`(size, 2)` float64: how many pixels of each bin have flag 0 and flag 1.

    Args:
        bins: `(N,)` uint8 or uint16 below `size`, such as from `quantise`.
        flags: `(N,)` bool.
    """
    return count(np.multiply(bins, 2, dtype=np.uint16) + flags, 2 * size).reshape(size, 2)


def weighted_count(bins: np.ndarray, weights: np.ndarray, size: int = BINS) -> np.ndarray:
    """`(size,)` float64: the sum of the weights in each bin."""
    if size > _FEW_BINS:
        return np.bincount(bins, weights, minlength=size)
    sums = np.bincount(_taking_turns(bins, size, np.intp), weights, minlength=_COPIES * size)
    return sums.reshape(_COPIES, size).sum(axis=0)


def _taking_turns(bins: np.ndarray, size: int, kind: type[np.integer]) -> np.ndarray:
    """The pixels' bins, dealt out to `_COPIES` copies of a histogram of `size` bins.

    With few bins, neighbouring pixels share one, and each addition to it would have to wait for
    the one before.
    """
    turns = np.arange(4096, dtype=kind) % _COPIES * kind(size)
    whole = len(bins) // 4096 * 4096
    dealt = np.empty(len(bins), kind)
    np.add(bins[:whole].reshape(-1, 4096), turns, out=dealt[:whole].reshape(-1, 4096))
    np.add(bins[whole:], turns[: len(bins) - whole], out=dealt[whole:])
    return dealt


def coarsened(histogram: np.ndarray, factor: int) -> np.ndarray:
    """The histogram with `factor` neighbouring bins (first axis) made one."""
    return np.add.reduceat(histogram, np.arange(0, len(histogram), factor), axis=0)


def auroc(negatives: np.ndarray, positives: np.ndarray) -> float | None:
    """Probability that a positive scores higher than a negative, ties counting half.

    Args:
        negatives, positives: `(bins,)` counts by rising score.

    Returns:
        In [0, 1]; None without positives or without negatives.
    """
    pairs = negatives.sum() * positives.sum()
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def auroc_bound(negatives: np.ndarray, positives: np.ndarray) -> float | None:
    """How far `auroc` can be from the value of the unbinned scores: half the pairs in one bin."""
    pairs = negatives.sum() * positives.sum()
    return float((positives * negatives).sum() / 2 / pairs) if pairs else None


def average_precision(negatives: np.ndarray, positives: np.ndarray) -> float | None:
    """Area under the precision-recall curve by steps, Σ (R_n − R_{n−1})·P_n."""
    if not positives.sum():
        return None
    found, alarms = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    steps = positives[::-1] > 0
    precision = found[steps] / (found[steps] + alarms[steps])
    return float((positives[::-1][steps] * precision).sum() / positives.sum())


def fpr_at_tpr(negatives: np.ndarray, positives: np.ndarray, tpr: float = 0.95) -> float | None:
    """False positive rate at the highest threshold that finds at least `tpr` of the positives."""
    if not positives.sum() or not negatives.sum():
        return None
    found, alarms = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    at = int(np.argmax(found >= tpr * positives.sum()))
    return float(alarms[at] / negatives.sum())


Measure = Callable[[np.ndarray], np.ndarray]
"""Turns mean errors into the reported quantity: `identity` for rates, `numpy.sqrt` for RMSE."""


def identity(mean_errors: np.ndarray) -> np.ndarray:
    return mean_errors


def area_under_risk_coverage(
    counts: np.ndarray, errors: np.ndarray, measure: Measure = identity
) -> float | None:
    """Mean, over r = 1 … N, of the error of the r least uncertain pixels (AURC).

    The sparsification curve of Ilg et al. (ECCV 2018) is the same curve read from the other end,
    so the area under the sparsification error (AUSE) is this for the uncertainty minus this for
    the oracle, which ranks pixels by their true error.

    Args:
        counts, errors: `(bins,)` pixels and sums of their errors, by rising uncertainty.
        measure: applied to the mean error of the retained pixels.

    Returns:
        In the unit of `measure(errors)`; None without pixels.
    """
    retained, kept_errors = _cumulative(counts, errors)
    total = retained[-1]
    if not total:
        return None
    # Cutting wide bins keeps the two-point rule below exact enough where the curve bends.
    ends = np.sort(np.concatenate([retained, np.round(total * _CUTS)]))
    starts, sizes = ends[:-1], np.diff(ends)
    # Gauss's rule for the discrete uniform distribution on 1 … n, exact for cubic polynomials.
    offset = np.sqrt(np.maximum(sizes**2 - 1, 0) / 12)
    area = 0.0
    for nodes in (starts + (sizes + 1) / 2 - offset, starts + (sizes + 1) / 2 + offset):
        area += (sizes / 2 * measure(np.interp(nodes, retained, kept_errors) / nodes)).sum()
    return float(area / total)


def area_bound(counts: np.ndarray, errors: np.ndarray) -> float | None:
    """How far `area_under_risk_coverage` with `identity` can be from that of unbinned scores.

    While the n pixels of a bin join the r before them, their summed error e arrives in an unknown
    order: at most e too early or too late in the k-th step, whose error is divided by r + k.
    """
    retained, _ = _cumulative(counts, errors)
    sizes, ambiguous = np.diff(retained), errors[counts > 0]
    starts, shared = retained[:-1], sizes > 1
    if not sizes.size:
        return None
    # Σ 1/(r + k) over k = 1 … n − 1 (with all n pixels in, the order no longer matters).
    steps = 1 / (starts + 1) + np.log((starts + np.maximum(sizes - 1, 1)) / (starts + 1))
    return float((ambiguous * steps)[shared].sum() / retained[-1])


def risk_coverage_curve(
    counts: np.ndarray, errors: np.ndarray, coverages: np.ndarray, measure: Measure = identity
) -> np.ndarray:
    """The error of the least uncertain pixels at each coverage in (0, 1], same shape."""
    retained, kept_errors = _cumulative(counts, errors)
    at = coverages * retained[-1]
    return measure(np.interp(at, retained, kept_errors) / at)


def _cumulative(counts: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and summed errors up to each non-empty bin, both starting at 0."""
    filled = counts > 0
    return (
        np.concatenate([[0.0], np.cumsum(counts[filled])]),
        np.concatenate([[0.0], np.cumsum(errors[filled])]),
    )
