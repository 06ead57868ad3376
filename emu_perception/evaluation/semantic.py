"""Metrics of the semantic task: what was predicted, and what its uncertainty is worth.

Pixels without a true label are left out. A prediction of 255 (label withheld for lack of
confidence) is an error for IoU, accuracy and the ranking, and left out of the calibration error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.evaluation import calibration, pavpu, ranking, sparsification
from emu_perception.evaluation.sums import Sums, logarithm, optional_mean, ratio, ratios
from emu_perception.prediction import UNLABELLED, Prediction

NEEDS: dict[str, tuple[str, str]] = {
    "class_counts": ("labels", "miou miou_image_mean pixel_accuracy class_accuracy"),
    "calibration": (
        "confidence",
        "ece ece_equal_mass ece_top_label ece_boundary ece_interior mean_confidence",
    ),
    "likelihood": ("probabilities", "nll brier ece_classwise"),
    "uncertainty_histogram": (
        "semantic_entropy",
        "p_accurate_certain p_uncertain_inaccurate pavpu error_auroc aurc ause ause_random "
        "ause_image_mean",
    ),
    "depth_histogram": ("depth", "ause_predicted_depth"),
    "proximity_histogram": ("labels", "ause_boundary"),
}
"""The predicted map that each of the sums needs, and the figures that need these sums."""

SMALLEST_PROBABILITY = 1e-12
"""Probabilities below this count as this in the negative log-likelihood."""


def semantic_sums(
    prediction: Prediction,
    labels: np.ndarray,
    classes: int,
    *,
    near_boundary: np.ndarray,
    proximity: np.ndarray | None = None,
    void_as_inaccurate: bool = False,
) -> Sums:
    """One frame.

    Args:
        prediction: with `labels`; the metrics of maps that it lacks are left out.
        labels: `(H, W)` uint8 truth, 255 = unlabelled.
        classes: C; ids are in [0, C).
        near_boundary: `(H, W)` bool, true near a boundary of the truth.
        proximity: `(H, W)` uint8, `boundary_proximity` of the predicted labels; None leaves the
            baselines of the uncertainty out.
        void_as_inaccurate: unlabelled pixels count as inaccurate in p(accurate|certain),
            p(uncertain|inaccurate) and PAvPU.

    Raises:
        ValueError: an id is neither a class nor 255.
    """
    assert prediction.labels is not None
    predicted = prediction.labels
    confusion = confusion_matrix(labels, predicted, classes)
    hits = np.diag(confusion)
    counts = np.stack([hits, confusion.sum(axis=1), confusion[:, :-1].sum(axis=0)])
    sums: Sums = {"confusion": confusion, "class_counts": counts}
    image_iou = optional_mean(class_iou(counts))
    sums["image_iou"] = np.array([image_iou or 0.0, image_iou is not None], np.float64)

    labelled = np.flatnonzero(labels != UNLABELLED)
    everything = len(labelled) == labels.size

    def select(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(-1)
        return flat if everything else flat.take(labelled)

    truth = select(labels)
    chosen = select(predicted)
    correct = chosen == truth
    if prediction.confidence is not None:
        sums |= _calibration_sums(
            select(prediction.confidence), chosen, correct, select(near_boundary), classes
        )
    if prediction.semantic_entropy is not None:
        sums |= _uncertainty_sums(
            prediction.semantic_entropy, labels, correct, select, void_as_inaccurate
        )
        if proximity is not None:
            sums["proximity_histogram"] = ranking.split_count(select(proximity), ~correct, 256)
        if proximity is not None and prediction.depth is not None:
            bins = ranking.quantise(select(prediction.depth))
            sums["depth_histogram"] = ranking.split_count(bins, ~correct)
    if prediction.probabilities is not None:
        rows = prediction.probabilities.reshape(classes, -1)
        of_truth: np.ndarray = rows.reshape(-1).take(truth.astype(np.intp) * labels.size + labelled)
        sums["likelihood"] = _likelihood(rows, of_truth, None if everything else labelled)
        known = None if everything else labels.reshape(-1) != UNLABELLED
        sums |= calibration.classwise_sums(rows, labels.reshape(-1), known)
    return sums


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """`(C, C + 1)` pixels by true and predicted class; the last column is withheld labels."""
    for what, ids in (("ground truth", truth), ("prediction", predicted)):
        unknown = (ids >= classes) & (ids != UNLABELLED)
        if unknown.any():
            raise ValueError(
                f"the {what} holds class ids {', '.join(map(str, np.unique(ids[unknown])[:10]))}, "
                f"but the label set has ids 0 to {classes - 1} (and {UNLABELLED} = unlabelled); "
                "is it labelled with another label set?"
            )
    side, last = classes + 1, np.uint8(classes)
    # 255 is the only id above the classes: it becomes the last row and column.
    rows, columns = (np.minimum(ids, last).reshape(-1) for ids in (truth, predicted))
    # The type is named: NumPy 1 would keep the ids' own, and overflow.
    pairs = ranking.count(np.multiply(rows, side, dtype=np.uint16) + columns, side * side)
    return pairs.reshape(side, side)[:classes]


def _calibration_sums(
    confidence: np.ndarray,
    chosen: np.ndarray,
    correct: np.ndarray,
    near_boundary: np.ndarray,
    classes: int,
) -> Sums:
    """Pixels whose label was withheld (255) have no confidence and are left out."""
    given = chosen != UNLABELLED
    if not given.all():
        confidence, chosen, correct, near_boundary = (
            values[given] for values in (confidence, chosen, correct, near_boundary)
        )
    cells = np.multiply(chosen, calibration.BINS, dtype=np.uint16)
    cells = cells + calibration.width_bins(confidence)
    cells = cells * np.uint16(2) + near_boundary
    shape = (classes, calibration.BINS, 2)
    size = classes * calibration.BINS * 2
    pixels = ranking.count(cells * np.uint16(2) + correct, 2 * size).reshape(*shape, 2)
    confidences = ranking.weighted_count(cells, confidence, size).reshape(shape)
    calibrated = np.stack([pixels.sum(axis=-1), confidences, pixels[..., 1]])
    doubt = ranking.quantise(1 - confidence)
    return {
        # Pixels, summed confidence, correct pixels by (class, confidence, near a boundary).
        "calibration": calibrated,
        "confidence_bins": calibrated.sum(axis=(1, 3)),
        "doubt_histogram": ranking.split_count(doubt, ~correct),
    }


def _uncertainty_sums(
    uncertainty: np.ndarray,
    labels: np.ndarray,
    correct: np.ndarray,
    select: Any,
    void_as_inaccurate: bool,
) -> Sums:
    chosen = select(uncertainty)
    histogram = ranking.split_count(ranking.quantise(chosen), ~correct)
    sums: Sums = {"uncertainty_histogram": histogram}
    if not void_as_inaccurate:
        return sums | pavpu.pavpu_sums(chosen, correct)
    void = labels.reshape(-1) == UNLABELLED
    accurate: np.ndarray = np.zeros(labels.size, bool)
    accurate[~void] = correct
    bins = ranking.quantise(uncertainty.reshape(-1)[void])
    sums["void_histogram"] = ranking.count(bins, ranking.BINS)
    return sums | pavpu.pavpu_sums(uncertainty.reshape(-1), accurate)


def _likelihood(
    probabilities: np.ndarray, of_truth: np.ndarray, labelled: np.ndarray | None
) -> np.ndarray:
    """`(3,)` pixels, summed negative log-likelihood and summed Brier score (Σ over classes).

    Args:
        probabilities: `(C, N)` of all pixels.
        of_truth: of the true class of the labelled pixels.
        labelled: which they are, None for all.
    """
    if labelled is None:
        squares = sum(float(np.vdot(row, row)) for row in probabilities)
    else:
        per_pixel = np.einsum("cn,cn->n", probabilities, probabilities)
        squares = float(per_pixel.take(labelled).sum(dtype=np.float64))
    log = logarithm(np.maximum(of_truth, np.float32(SMALLEST_PROBABILITY)))
    total = of_truth.sum(dtype=np.float64)
    return np.array(
        [len(of_truth), -log.sum(dtype=np.float64), squares - 2 * total + len(of_truth)]
    )


def class_iou(class_counts: np.ndarray) -> np.ndarray:
    """`(C,)` intersection over union, NaN for classes in neither truth nor prediction.

    Args:
        class_counts: `(3, C)` pixels hit, of the true class, of the predicted class. A pixel whose
            label was withheld (255) is a miss of its true class and of no predicted one.
    """
    hits, truth, predicted = class_counts
    return ratios(hits, truth + predicted - hits)


def ause(histogram: np.ndarray) -> float | None:
    """AUSE of the error rate, from `(bins, 2)` correct and wrong pixels by rising uncertainty.

    It equals the excess area under the risk-coverage curve of Geifman et al. (ICLR 2019).
    """
    return sparsification.ause(_ranking(histogram), sparsification.binary_oracle(histogram))


def _ranking(histogram: np.ndarray) -> sparsification.Ranking:
    return histogram.sum(axis=1), histogram[:, 1]


def headline(sums: Sums) -> dict[str, float | None]:
    """The figures that also get confidence intervals, those of them that `sums` can give."""
    counts = sums["class_counts"]
    values = {
        "miou": optional_mean(class_iou(counts)),
        "pixel_accuracy": ratio(counts[0].sum(), counts[1].sum()),
    }
    if "confidence_bins" in sums:
        values["ece"] = calibration.expected_calibration_error(*sums["confidence_bins"])
    if "likelihood" in sums:
        pixels, log_loss, brier = sums["likelihood"]
        values |= {"nll": ratio(log_loss, pixels), "brier": ratio(brier, pixels)}
    if "uncertainty_histogram" in sums:
        values |= pavpu.pavpu_values(sums)
        values["ause"] = ause(sums["uncertainty_histogram"])
    return values


def semantic_values(sums: Sums, names: tuple[str, ...]) -> dict[str, Any]:
    """All figures of the data set; those whose inputs (`NEEDS`) the `sums` lack are left out.

    Args:
        sums: of `semantic_sums`, added up.
        names: class names; the entropy is reported as a fraction of its maximum ln C.
    """
    hits, truth, _ = sums["class_counts"]
    pixels = truth.sum()
    values: dict[str, Any] = {
        "pixels": int(pixels),
        "withheld_fraction": ratio(sums["confusion"][:, -1].sum(), pixels),
        "class_accuracy": optional_mean(ratios(hits, truth)),
        "miou_image_mean": ratio(*sums["image_iou"]),
        "class_iou": {
            name: None if np.isnan(iou) else float(iou)
            for name, iou in zip(names, class_iou(sums["class_counts"]))
        },
    }
    values |= headline(sums)
    if "calibration" in sums:
        values |= _calibration_values(sums)
    if "classwise" in sums:
        values["ece_classwise"] = calibration.classwise_error(sums)
    if "uncertainty_histogram" in sums:
        values |= _uncertainty_values(sums, unit=1 / float(np.log(max(len(names), 2))))
    return values


def _calibration_values(sums: Sums) -> dict[str, Any]:
    cells = sums["calibration"]
    error = calibration.expected_calibration_error
    return {
        "ece_equal_mass": error(*calibration.equal_mass(sums["doubt_histogram"])),
        "ece_top_label": error(*cells.sum(axis=3)),
        "ece_boundary": error(*cells[..., 1].sum(axis=1)),
        "ece_interior": error(*cells[..., 0].sum(axis=1)),
        "mean_confidence": ratio(cells[1].sum(), cells[0].sum()),
        "reliability": calibration.reliability(*sums["confidence_bins"]),
    }


def _uncertainty_values(sums: Sums, unit: float) -> dict[str, Any]:
    histogram = sums["uncertainty_histogram"]
    right, wrong = histogram.T
    judged = histogram.copy()
    if "void_histogram" in sums:
        judged[:, 1] += sums["void_histogram"]
    rankings = {"uncertainty": _ranking(histogram)} | {
        name: _ranking(sums[histogram])
        for name, histogram in sparsification.BASELINES.items()
        if histogram in sums
    }
    return {
        "at_median": pavpu.pavpu_values(sums, "pavpu_median"),
        "pooled": pavpu.pooled_pavpu_values(sums),
        "at_80_percent_coverage": pavpu.pavpu_at_coverage(judged, 0.8, unit),
        "sweep": [pavpu.pavpu_at_coverage(judged, coverage, unit) for coverage in pavpu.SWEEP],
        "error_auroc": ranking.auroc(right, wrong),
        "error_auroc_bound": ranking.auroc_bound(right, wrong),
        "aurc": ranking.area_under_risk_coverage(*_ranking(histogram)),
        "aurc_bound": ranking.area_bound(*_ranking(histogram)),
        "ause_image_mean": ratio(*sums["image_ause"]),
    } | sparsification.report(rankings, sparsification.binary_oracle(histogram))
