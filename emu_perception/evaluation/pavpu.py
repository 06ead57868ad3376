"""Does the uncertainty tell accurate from inaccurate pixels at a threshold?

p(accurate|certain), p(uncertain|inaccurate) and PAvPU of Mukhoti and Gal (arXiv 1811.12709),
per pixel, as EMUFormer (arXiv 2402.10580, section 4.2) reports them: a pixel is certain if its
uncertainty is below the mean of its image. Its authors later recommend the median (arXiv
2405.17097): both are reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation.ranking import bin_edges
from emu_perception.evaluation.sums import Sums, ratio, ratios

MEASURES = ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")
SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Fractions of certain pixels at which the sweep is reported."""


def pavpu_sums(uncertainty: np.ndarray, accurate: np.ndarray, always_uncertain: int = 0) -> Sums:
    """One image at the threshold of its mean uncertainty, and at that of its median.

    Args:
        uncertainty: `(N,)` float, any unit.
        accurate: `(N,)` bool.
        always_uncertain: further pixels, inaccurate and uncertain, that have no value to compare.

    Returns:
        `pavpu.counts`: `(5,)` accurate and certain, certain, inaccurate and uncertain, inaccurate,
        all pixels; `pavpu.image_sums` and `pavpu.image_counts`: `(3,)` the three measures of the
        image, and whether each is defined (there are certain, inaccurate, any pixels). The latter
        two at the median as `pavpu_median.…`.
    """
    thresholds = [0.0, 0.0]
    if uncertainty.size:
        thresholds = [float(uncertainty.mean(dtype=np.float64)), float(np.median(uncertainty))]
    counts, at_median = (_counts(uncertainty, accurate, t, always_uncertain) for t in thresholds)
    return {
        "pavpu.counts": counts,
        **_of_image("pavpu", counts),
        **_of_image("pavpu_median", at_median),
    }


def _counts(
    uncertainty: np.ndarray, accurate: np.ndarray, threshold: float, always_uncertain: int
) -> np.ndarray:
    """The five counts at a threshold, a plain float: the comparison stays in the array's type."""
    certain = uncertainty < threshold
    both, n_certain = np.count_nonzero(certain & accurate), np.count_nonzero(certain)
    inaccurate = accurate.size - np.count_nonzero(accurate)
    counts = np.array(
        [both, n_certain, inaccurate - (n_certain - both), inaccurate, accurate.size], np.float64
    )
    counts[2:] += always_uncertain
    return counts


def _of_image(prefix: str, counts: np.ndarray) -> Sums:
    measures = _measures(counts)
    return {
        f"{prefix}.image_sums": np.nan_to_num(measures),
        f"{prefix}.image_counts": (~np.isnan(measures)).astype(np.float64),
    }


def pavpu_values(sums: Sums, prefix: str = "pavpu") -> dict[str, float | None]:
    """The three measures averaged over images; an image for which one is undefined is left out.

    Args:
        sums: of `pavpu_sums`, added up.
        prefix: `pavpu` for the threshold at each image's mean, `pavpu_median` for its median.
    """
    found = zip(MEASURES, sums[f"{prefix}.image_sums"], sums[f"{prefix}.image_counts"])
    return {name: ratio(total, images) for name, total, images in found}


def pooled_pavpu_values(sums: Sums) -> dict[str, float | None]:
    """The three measures over the pixels of all images, each with its image's threshold."""
    return _named(_measures(sums["pavpu.counts"]))


def pavpu_at_coverage(histogram: np.ndarray, coverage: float, unit: float = 1.0) -> dict[str, Any]:
    """The measures with one threshold for the set, below which `coverage` of the pixels lie.

    Args:
        histogram: `(bins, 2)` accurate and inaccurate pixels by rising uncertainty, as quantised
            by `ranking.quantise`; the bin that holds the threshold is shared out evenly.
        coverage: fraction of certain pixels, in (0, 1).
        unit: factor from the histogram's uncertainty to the reported threshold.
    """
    totals = histogram.sum(axis=1)
    edges = np.concatenate([[0.0], np.cumsum(totals)])
    wanted = coverage * edges[-1]
    accurate, inaccurate = (
        np.interp(wanted, edges, np.concatenate([[0.0], np.cumsum(histogram[:, side])]))
        for side in (0, 1)
    )
    all_inaccurate = histogram[:, 1].sum()
    counts = np.array(
        [accurate, wanted, all_inaccurate - inaccurate, all_inaccurate, edges[-1]], np.float64
    )
    bin_of_threshold = max(int(np.searchsorted(edges, wanted)) - 1, 0)
    threshold = float(bin_edges(len(totals))[bin_of_threshold]) * unit
    return {"coverage": coverage, "threshold": threshold} | _named(_measures(counts))


def _measures(counts: np.ndarray) -> np.ndarray:
    """`(3,)` the measures of `(5,)` counts, NaN where undefined."""
    accurate_certain, certain, inaccurate_uncertain, inaccurate, total = counts
    accurate_or_uncertain = accurate_certain + inaccurate_uncertain
    return ratios(
        np.array([accurate_certain, inaccurate_uncertain, accurate_or_uncertain]),
        np.array([certain, inaccurate, total]),
    )


def _named(measures: np.ndarray) -> dict[str, float | None]:
    return {n: None if np.isnan(v) else float(v) for n, v in zip(MEASURES, measures)}
