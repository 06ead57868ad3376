"""Metrics of edges: precision, recall and F1 of the edge pixels, without any tolerance, and the
boundary measure odsF with one (Martin, Fowlkes and Malik, TPAMI 2004)."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation.boundary_matching import match_boundaries, optimal_f
from emu_perception.evaluation.sums import Sums, ratio, ratios
from emu_perception.prediction import UNLABELLED

BINS = 256
"""Probabilities are counted in bins of equal width; bin 128 begins at 0.5."""


def edges_sums(predicted: np.ndarray, truth: np.ndarray) -> Sums:
    """One frame.

    Args:
        predicted: `(H, W)` float, probability of an edge.
        truth: `(H, W)` uint8: 1 = edge, 0 = none, 255 = unknown.

    Returns:
        `edge_counts`: edge pixels right, missed and wrong at 0.5, and all others; `edge_bins`:
        `(BINS, 2)` pixels by probability, without and with an edge.
    """
    known = truth != UNLABELLED
    edge = truth[known] == 1
    bins = np.minimum((predicted[known] * BINS).astype(np.int64), BINS - 1)
    histogram = np.stack([np.bincount(bins[m], minlength=BINS) for m in (~edge, edge)], axis=1)
    wrong, right = histogram[BINS // 2 :].sum(axis=0)
    rest, missed = histogram[: BINS // 2].sum(axis=0)
    return {
        "edge_counts": np.array([right, missed, wrong, rest], np.float64),
        "edge_bins": histogram.astype(np.float64),
        "edge_matches": match_boundaries(predicted, truth),
    }


def headline(sums: Sums) -> dict[str, float | None]:
    """The figures at a probability of 0.5, which also get confidence intervals.

    `f1` is that of the edges; `f1_mean` the mean with that of the pixels without one, as DenseMTL's
    authors report it: a network that predicts "no edge" everywhere still gets nearly 0.5.
    """
    right, missed, wrong, rest = sums["edge_counts"]
    f1 = [ratio(2 * hit, 2 * hit + missed + wrong) for hit in (right, rest)]
    known = [value for value in f1 if value is not None]
    return {
        "f1": f1[0],
        "f1_mean": sum(known) / len(known) if known else None,
        "precision": ratio(right, right + wrong),
        "recall": ratio(right, right + missed),
    }


def edges_values(sums: Sums) -> dict[str, Any]:
    """All figures of the data set; `best_f1` is that of the best threshold for all its images."""
    right = np.cumsum(sums["edge_bins"][::-1, 1])[::-1]
    predicted = np.cumsum(sums["edge_bins"].sum(axis=1)[::-1])[::-1]
    edges = sums["edge_bins"][:, 1].sum()
    f1 = ratios(2 * right, predicted + edges)
    best = int(np.nanargmax(f1)) if edges else None
    return {
        "pixels": int(sums["edge_bins"].sum()),
        "best_f1": None if best is None else float(f1[best]),
        "best_threshold": None if best is None else best / BINS,
        "ods_f": optimal_f(sums["edge_matches"]),
    } | headline(sums)
