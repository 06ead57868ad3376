"""Metrics of the depth task: how far off, and what the predicted variance is worth."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from emu_perception.evaluation import calibration, pavpu, ranking, sparsification
from emu_perception.evaluation.sums import Sums, logarithm, ratio
from emu_perception.labels import LabelSet
from emu_perception.prediction import MIN_VARIANCE, Prediction

_OCTAVES = ranking.OCTAVES[1] - ranking.OCTAVES[0]

NEEDS: dict[str, tuple[str, str]] = {
    "errors": (
        "depth",
        "rmse rmse_image_mean mae absrel sqrel log10 inverse_mae inverse_absrel silog delta1 "
        "delta2 delta3 valid_fraction",
    ),
    "gaussian": (
        "depth_variance",
        "nll coverage_1sigma coverage_2sigma mean_normalized_squared_error ence "
        "p_accurate_certain p_uncertain_inaccurate pavpu error_auroc aurc ause ause_random "
        "ause_image_mean",
    ),
    "depth_histogram": ("depth_variance", "ause_predicted_depth"),
    "proximity_histogram": ("labels", "ause_boundary"),
}
"""The predicted map that each of the sums needs, and the figures that need these sums."""


VEHICLES = ("car", "truck", "bus")
"""Classes whose depth is also scored by itself: what a robot must not run into."""


def chosen_classes(names: Collection[str] | None, label_set: LabelSet | None) -> tuple[str, ...]:
    """Classes whose depth is also scored by itself; None: the vehicles of the label set.

    Raises:
        ValueError: the label set has no class of one of the names.
    """
    known = label_set.names if label_set else ()
    if names is None:
        return tuple(name for name in VEHICLES if name in known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"depth_classes: there is no class {', '.join(unknown)}; there are "
            f"{', '.join(known) or 'none'}"
        )
    return tuple(names)


def where_class(depth: np.ndarray, labels: np.ndarray, ids: Collection[int]) -> np.ndarray:
    """`(H, W)` true depth at pixels predicted as one of the classes; 0 (unknown) elsewhere."""
    table = np.zeros(256, bool)
    table[list(ids)] = True
    return np.where(table[labels], depth, 0)


def depth_sums(
    prediction: Prediction,
    truth: np.ndarray,
    depth_range: tuple[float, float],
    *,
    proximity: np.ndarray | None = None,
    void_as_inaccurate: bool = False,
) -> Sums:
    """One frame.

    A pixel with a true depth whose prediction is NaN counts as outside every δ, and as inaccurate
    and uncertain in p(accurate|certain), p(uncertain|inaccurate) and PAvPU: that is what NaN tells
    a robot. It has no error, so all other figures leave it out; `valid_fraction` is their fraction.

    Args:
        prediction: with `depth`; without `depth_variance` only errors are summed.
        truth: `(H, W)` metres; anything outside `depth_range` (also 0, NaN) is unknown.
        depth_range: metres, both ends excluded.
        proximity: `(H, W)` uint8, `boundary_proximity` of the predicted labels if there are any.
        void_as_inaccurate: pixels of unknown depth count as inaccurate in the three measures.
    """
    assert prediction.depth is not None
    truth = np.asarray(truth, np.float32)
    known = (truth > depth_range[0]) & (truth < depth_range[1])
    predicted = np.isfinite(prediction.depth)
    if prediction.depth_variance is not None:
        predicted &= np.isfinite(prediction.depth_variance)
    valid = known & predicted
    n_known = int(np.count_nonzero(known))
    pixels = np.flatnonzero(valid)
    everything = len(pixels) == truth.size

    def select(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(-1)
        return flat if everything else flat.take(pixels)

    y, mean = select(truth), select(prediction.depth)
    absolute = np.abs(mean - y)
    squared = np.square(absolute)
    with np.errstate(divide="ignore"):
        factor = np.maximum(mean / y, y / mean)
    accurate = factor < np.float32(1.25)
    sums = _error_sums(mean, y, absolute, squared, factor)
    sums["known"] = np.float64(n_known)
    if prediction.depth_variance is None:
        return sums
    variance = np.maximum(select(prediction.depth_variance), np.float32(MIN_VARIANCE))
    sums |= _uncertainty_sums(mean, variance, absolute, squared, accurate)
    if proximity is not None:
        sums["proximity_histogram"] = _ranked(select(proximity), squared, 256)
    if not void_as_inaccurate:
        rejected = n_known - len(pixels)
        sums["always_uncertain"] = np.float64(rejected)
        return sums | pavpu.pavpu_sums(variance, accurate, rejected)
    rejected = int(predicted.size - np.count_nonzero(predicted))
    sums["always_uncertain"] = np.float64(rejected)
    void = prediction.depth_variance[predicted & ~known]
    sums["void_histogram"] = ranking.count(ranking.quantise(void), ranking.BINS)
    return sums | pavpu.pavpu_sums(
        np.concatenate([variance, void]),
        np.concatenate([accurate, np.zeros(len(void), bool)]),
        rejected,
    )


def _error_sums(
    mean: np.ndarray,
    y: np.ndarray,
    absolute: np.ndarray,
    squared: np.ndarray,
    factor: np.ndarray,
) -> Sums:
    n = len(y)
    relative = absolute / y
    # A mean of 0 or less has no logarithm and no reciprocal; it counts as a millimetre there.
    positive = np.maximum(mean, np.float32(1e-3))
    log_ratio = logarithm(positive / y)
    # |1 / positive - 1 / y| is this over y, its ratio to 1 / y this itself.
    inverse_relative = np.abs(positive - y) / positive
    errors = [
        squared.sum(dtype=np.float64),
        absolute.sum(),
        relative.sum(),
        np.vdot(relative, absolute),
        np.abs(log_ratio).sum() / np.log(10),
        (inverse_relative / y).sum(dtype=np.float64),
        inverse_relative.sum(dtype=np.float64),
    ]
    within = [np.count_nonzero(factor < np.float32(1.25**k)) for k in (1, 2, 3)]
    image_errors = [0.0, 0.0]
    if n:
        log_ratio -= log_ratio.mean()
        image_errors = [np.sqrt(errors[0] / n), 100 * np.sqrt(np.vdot(log_ratio, log_ratio) / n)]
    return {
        "valid": np.float64(n),
        "errors": np.array(errors, np.float64),
        "within": np.array(within, np.float64),
        "images": np.float64(n > 0),
        "image_errors": np.array(image_errors, np.float64),
    }


def _uncertainty_sums(
    mean: np.ndarray,
    variance: np.ndarray,
    absolute: np.ndarray,
    squared: np.ndarray,
    accurate: np.ndarray,
) -> Sums:
    bins = ranking.quantise(variance)
    by_variance = np.empty((ranking.BINS, 3))
    by_variance[:, :2] = ranking.split_count(bins, ~accurate)
    by_variance[:, 2] = ranking.weighted_count(bins, squared)
    distance = ranking.quantise(mean)
    by_distance = _ranked(distance, squared)
    variances = ranking.weighted_count(distance, variance)
    normalized = squared / variance
    beyond = (normalized > 1).astype(np.uint16) + (normalized > 4)
    octaves = distance >> ranking.MANTISSA_BITS
    levels = ranking.count(octaves * np.uint16(3) + beyond, 3 * _OCTAVES).reshape(_OCTAVES, 3)
    octave_sums = [by_distance[:, 1], variances]
    total = normalized.sum()
    return {
        # Accurate pixels, inaccurate pixels, summed squared errors.
        "variance_histogram": by_variance,
        "oracle_histogram": ranking.count(ranking.quantise(absolute), ranking.BINS),
        "depth_histogram": by_distance,
        # Pixels within σ, between σ and 2σ, beyond; summed squared errors, summed variances.
        "octaves": np.column_stack(
            [levels, *(ranking.coarsened(v, ranking.BINS // _OCTAVES) for v in octave_sums)]
        ),
        "gaussian": np.array([len(mean), (logarithm(variance).sum() + total) / 2, total]),
    }


def _ranked(bins: np.ndarray, squared: np.ndarray, size: int = ranking.BINS) -> np.ndarray:
    """`(size, 2)` pixels and summed squared errors."""
    counts = ranking.count(bins.astype(np.uint16, copy=False), size)
    return np.column_stack([counts, ranking.weighted_count(bins, squared, size)])


def _ause(sums: Sums) -> float | None:
    return sparsification.ause(_by_variance(sums), _oracle(sums), np.sqrt)


def _by_variance(sums: Sums) -> sparsification.Ranking:
    histogram = sums["variance_histogram"]
    return histogram[:, :2].sum(axis=1), histogram[:, 2]


def _oracle(sums: Sums) -> sparsification.Ranking:
    """Pixels ranked by their absolute error.

    The bin gives a pixel's squared error to within 0.4 %, and the known total most of the rest.
    """
    counts = sums["oracle_histogram"]
    squared = counts * ranking.bin_centers(len(counts)) ** 2
    total = squared.sum()
    return counts, squared * (sums["errors"][0] / total) if total else squared


def headline(sums: Sums) -> dict[str, float | None]:
    """The figures that also get confidence intervals, those of them that `sums` can give."""
    valid = sums["valid"]
    mean_squared = ratio(sums["errors"][0], valid)
    values = {
        "rmse": None if mean_squared is None else mean_squared**0.5,
        "mae": ratio(sums["errors"][1], valid),
        "absrel": ratio(sums["errors"][2], valid),
        "delta1": ratio(sums["within"][0], sums["known"]),
    }
    if "gaussian" in sums:
        values["nll"] = ratio(sums["gaussian"][1], sums["gaussian"][0])
        values |= pavpu.pavpu_values(sums)
        values["ause"] = _ause(sums)
    return values


def depth_values(sums: Sums) -> dict[str, Any]:
    """All figures of the data set; those whose inputs (`NEEDS`) the `sums` lack are left out.

    Args:
        sums: of `depth_sums`, added up.
    """
    valid, images = sums["valid"], sums["images"]
    values: dict[str, Any] = {
        "pixels": int(valid),
        "valid_fraction": ratio(valid, sums["known"]),
        "rmse_image_mean": ratio(sums["image_errors"][0], images),
        "silog": ratio(sums["image_errors"][1], images),
        "sqrel": ratio(sums["errors"][3], valid),
        "log10": ratio(sums["errors"][4], valid),
        "inverse_mae": ratio(sums["errors"][5], valid),
        "inverse_absrel": ratio(sums["errors"][6], valid),
        "delta2": ratio(sums["within"][1], sums["known"]),
        "delta3": ratio(sums["within"][2], sums["known"]),
    }
    values |= headline(sums)
    if "gaussian" in sums:
        values |= _uncertainty_values(sums)
    return values


def _uncertainty_values(sums: Sums) -> dict[str, Any]:
    histogram, octaves = sums["variance_histogram"], sums["octaves"]
    accurate, inaccurate = histogram[:, 0], histogram[:, 1]
    judged = histogram[:, :2].copy()
    judged[-1, 1] += sums["always_uncertain"]
    if "void_histogram" in sums:
        judged[:, 1] += sums["void_histogram"]
    right_or_wrong = histogram[:, :2].sum(axis=1), inaccurate
    within_one, within_two, _ = octaves[:, :3].sum(axis=0)
    rankings = {"uncertainty": _by_variance(sums)} | {
        name: (sums[histogram][:, 0], sums[histogram][:, 1])
        for name, histogram in sparsification.BASELINES.items()
        if histogram in sums
    }
    reliability = calibration.regression_reliability(*_by_variance(sums))
    return {
        "coverage_1sigma": ratio(within_one, sums["gaussian"][0]),
        "coverage_2sigma": ratio(within_one + within_two, sums["gaussian"][0]),
        "mean_normalized_squared_error": ratio(sums["gaussian"][2], sums["gaussian"][0]),
        "by_distance": _by_distance(octaves),
        "reliability": reliability,
        "ence": calibration.normalized_calibration_error(reliability),
        "at_median": pavpu.pavpu_values(sums, "pavpu_median"),
        "pooled": pavpu.pooled_pavpu_values(sums),
        "at_80_percent_coverage": _in_metres(pavpu.pavpu_at_coverage(judged, 0.8)),
        "sweep": [_in_metres(pavpu.pavpu_at_coverage(judged, c)) for c in pavpu.SWEEP],
        "error_auroc": ranking.auroc(accurate, inaccurate),
        "error_auroc_bound": ranking.auroc_bound(accurate, inaccurate),
        "aurc": ranking.area_under_risk_coverage(*right_or_wrong),
        "aurc_bound": ranking.area_bound(*right_or_wrong),
        "ause_image_mean": ratio(*sums["image_ause"]),
    } | sparsification.report(rankings, _oracle(sums), np.sqrt)


def _in_metres(point: dict[str, Any]) -> dict[str, Any]:
    """A point of the sweep with its threshold as standard deviation instead of variance."""
    return point | {"threshold": point["threshold"] ** 0.5}


def _by_distance(octaves: np.ndarray) -> list[dict[str, float]]:
    """Calibration by octaves of the predicted depth: truth is not known when it is needed."""
    edges, total = ranking.bin_edges(_OCTAVES), octaves[:, :3].sum()
    rows = []
    for low, high, cells in zip(edges[:-1], edges[1:], octaves):
        pixels = cells[:3].sum()
        if not pixels:
            continue
        rows.append(
            {
                "from": float(low),
                "to": float(high),
                "fraction": float(pixels / total),
                "rmse": float(np.sqrt(cells[3] / pixels)),
                "predicted_std": float(np.sqrt(cells[4] / pixels)),
                "coverage_1sigma": float(cells[0] / pixels),
                "coverage_2sigma": float(cells[:2].sum() / pixels),
            }
        )
    return rows
