"""AUSE and the sparsification curves of an uncertainty, its oracle and its baselines.

Ilg et al. (ECCV 2018): remove the most uncertain pixels first and watch the error of the rest. The
area between this curve and the oracle's, which removes the largest errors first, is the AUSE. It is
pooled over all pixels of the set and not normalised, so it has the error's unit.

The baselines are uncertainties that need no model of uncertainty: `random` order, the
`predicted_depth` (σ ∝ depth) and the proximity to a predicted class `boundary`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation import ranking

BASELINES = {"predicted_depth": "depth_histogram", "boundary": "proximity_histogram"}
"""The baselines other than random order, and the sums with their rankings."""

FRACTIONS_REMOVED = tuple(round(0.05 * step, 2) for step in range(20))

Ranking = tuple[np.ndarray, np.ndarray]
"""Pixels and summed errors, `(bins,)` each, by rising uncertainty."""


def ause(
    ranked: Ranking, oracle: Ranking, measure: ranking.Measure = ranking.identity
) -> float | None:
    """Area between the curve of an uncertainty and its oracle's, None without pixels."""
    area = ranking.area_under_risk_coverage(*ranked, measure)
    best = ranking.area_under_risk_coverage(*oracle, measure)
    return None if area is None or best is None else area - best


def binary_oracle(histogram: np.ndarray) -> Ranking:
    """The perfect order of `(bins, 2)` right and wrong pixels: the right ones first."""
    right, wrong = histogram.sum(axis=0)
    return np.array([right, wrong]), np.array([0.0, wrong])


def report(
    rankings: dict[str, Ranking], oracle: Ranking, measure: ranking.Measure = ranking.identity
) -> dict[str, Any]:
    """Areas and curves.

    Args:
        rankings: by name; `uncertainty` and those of the `BASELINES` that could be computed.
        oracle: the ranking by true error.
        measure: turns a mean error into what is plotted.

    Returns:
        `ause`, `ause_random`, and `ause_NAME` of each baseline (None if not in `rankings`), and
        `sparsification`: for each of `fraction_removed`, the error of the remaining pixels by
        the order of each ranking, of the `oracle`, and at `random`.
    """
    counts, errors = rankings["uncertainty"]
    random = np.array([counts.sum()]), np.array([errors.sum()])
    values: dict[str, Any] = {
        "ause": ause(rankings["uncertainty"], oracle, measure),
        "ause_random": ause(random, oracle, measure),
    }
    for name in BASELINES:
        values[f"ause_{name}"] = ause(rankings[name], oracle, measure) if name in rankings else None
    curves: dict[str, Any] = {"fraction_removed": list(FRACTIONS_REMOVED)}
    for name, (bins, sums) in (rankings | {"oracle": oracle, "random": random}).items():
        if bins.sum():
            retained = 1 - np.array(FRACTIONS_REMOVED)
            curve = ranking.risk_coverage_curve(bins, sums, retained, measure)
            curves[name] = [float(v) for v in curve]
    return values | {"sparsification": curves}
