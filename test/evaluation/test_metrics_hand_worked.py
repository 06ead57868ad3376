"""Figures that were worked out by hand."""

import numpy as np
import pytest

from emu_perception.evaluation import Evaluator
from emu_perception.prediction import Prediction

UNCERTAINTY = ([0.1, 0.2, 0.3, 0.45, 0.5, 0.6, 0.65], [0.1, 0.1, 0.4])
ACCURATE = ([1, 1, 0, 1, 0, 1, 0], [1, 0, 0])


def row(values, dtype=np.float32):
    return np.array([values], dtype)


def semantic_frame(index):
    """One row of pixels of class 0; an inaccurate prediction says 1."""
    labels = 1 - row(ACCURATE[index], np.uint8)
    uncertainty = row(UNCERTAINTY[index])
    return Prediction(labels=labels, semantic_entropy=uncertainty), np.zeros_like(labels)


def depth_frame(index):
    """One row of pixels 4 m away; an inaccurate prediction says 5 m, which is just not < 1.25."""
    depth = np.where(row(ACCURATE[index], bool), np.float32(4.5), np.float32(5))
    return Prediction(depth=depth, depth_variance=row(UNCERTAINTY[index])), np.full_like(depth, 4)


@pytest.fixture(params=["semantic", "depth"])
def task(request):
    return request.param


def evaluate(task, label_set, images):
    evaluator = Evaluator(label_set, (0.0, 80.0))
    for index in images:
        if task == "semantic":
            prediction, labels = semantic_frame(index)
            evaluator.update(prediction, labels)
        else:
            prediction, depth = depth_frame(index)
            evaluator.update(prediction, depth=depth)
    return evaluator.result(replicates=0)[task]


MEASURES = ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")


def test_pavpu_of_one_image(task, label_set):
    values = evaluate(task, label_set, [0])
    assert [values[m] for m in MEASURES] == pytest.approx([2 / 3, 2 / 3, 4 / 7])


def test_pavpu_of_two_images_averaged_and_pooled(task, label_set):
    values = evaluate(task, label_set, [0, 1])
    assert [values[m] for m in MEASURES] == pytest.approx([7 / 12, 7 / 12, 13 / 21])
    assert [values["pooled"][m] for m in MEASURES] == pytest.approx([0.6, 0.6, 0.6])


def test_pavpu_at_the_median(task, label_set):
    # Below 0.45 of the first image lie 2 accurate pixels and one of 3 inaccurate ones; below 0.1 of
    # the second none, so that p(accurate|certain) is the first image's.
    values = evaluate(task, label_set, [0, 1])["at_median"]
    assert [values[m] for m in MEASURES] == pytest.approx([2 / 3, (2 / 3 + 1) / 2, 13 / 21])


def test_where_all_pixels_are_equally_uncertain_none_is_certain(label_set):
    labels = row([0, 0, 1], np.uint8)
    evaluator = Evaluator(label_set)
    uncertainty = np.full_like(labels, 0.1, np.float32)
    evaluator.update(Prediction(labels=labels, semantic_entropy=uncertainty), np.zeros_like(labels))
    values = evaluator.result(0)["semantic"]
    assert [values[m] for m in MEASURES] == [None, 1, 1 / 3]


def test_pavpu_at_eighty_percent_coverage(task, label_set):
    # The 8 least uncertain of 10 pixels reach up to 0.5, and 4 of them are accurate. Of the 5
    # inaccurate pixels only that of 0.65 is among the two beyond, beside the accurate one of 0.6.
    values = evaluate(task, label_set, [0, 1])["at_80_percent_coverage"]
    assert [values[m] for m in MEASURES] == pytest.approx([4 / 8, 1 / 5, (4 + 1) / 10])
    expected = 0.5 / np.log(5) if task == "semantic" else 0.5**0.5
    assert values["threshold"] == pytest.approx(expected, rel=1 / 256)


def test_expected_calibration_error(label_set):
    confidence = row([0.95, 0.85, 0.85, 0.55])
    labels = row([0, 0, 1, 1], np.uint8)
    evaluator = Evaluator(label_set)
    evaluator.update(Prediction(labels=labels, confidence=confidence), np.zeros_like(labels))
    assert evaluator.result()["semantic.ece"] == pytest.approx(0.325)


def test_rmse_over_pixels_and_mean_of_image_rmses():
    evaluator = Evaluator(depth_range=(0.0, 80.0))
    for errors in ([1.0, 1.0], [3.0]):
        truth = np.full((1, len(errors)), 10, np.float32)
        evaluator.update(Prediction(depth=truth + row(errors)), depth=truth)
    result = evaluator.result()
    assert result["depth.rmse"] == pytest.approx(1.914854, abs=1e-6)
    assert result["depth.rmse_image_mean"] == pytest.approx(2.0)
    assert result["depth.mae"] == pytest.approx(5 / 3)


def test_gaussian_negative_log_likelihood():
    evaluator = Evaluator(depth_range=(0.0, 80.0))
    evaluator.update(Prediction(depth=row([1.0]), depth_variance=row([2.0])), depth=row([3.0]))
    result = evaluator.result()
    assert result["depth.nll"] == pytest.approx(1.346574, abs=1e-6)
    # The error of 2 m is √2 deviations.
    assert result["depth.coverage_1sigma"] == 0
    assert result["depth.coverage_2sigma"] == 1
    assert result["depth.mean_normalized_squared_error"] == pytest.approx(2)


def test_depth_errors_of_one_pixel():
    evaluator = Evaluator(depth_range=(0.0, 80.0))
    evaluator.update(Prediction(depth=row([3.0])), depth=row([2.0]))
    values = evaluator.result()["depth"]
    assert values["absrel"] == pytest.approx(0.5)
    assert values["sqrel"] == pytest.approx(0.5)
    assert values["log10"] == pytest.approx(np.log10(1.5))
    assert values["inverse_mae"] == pytest.approx(1 / 6)
    assert values["inverse_absrel"] == pytest.approx(1 / 3)
    assert values["silog"] == pytest.approx(0, abs=1e-6)
    assert [values[f"delta{k}"] for k in (1, 2, 3)] == [0, 1, 1]


def test_silog_is_the_deviation_of_the_log_ratio():
    evaluator = Evaluator(depth_range=(0.0, 80.0))
    evaluator.update(Prediction(depth=row([2.0, 8.0])), depth=row([2.0, 2.0]))
    assert evaluator.result()["depth.silog"] == pytest.approx(100 * np.log(4) / 2, rel=1e-5)


def test_likelihood_and_brier_score(label_set):
    probabilities = np.array([0.6, 0.3, 0.1, 0, 0], np.float32).reshape(5, 1, 1)
    evaluator = Evaluator(label_set)
    prediction = Prediction(labels=row([0], np.uint8), probabilities=probabilities)
    evaluator.update(prediction, row([1], np.uint8))
    result = evaluator.result()
    assert result["semantic.nll"] == pytest.approx(-np.log(0.3), rel=1e-6)
    assert result["semantic.brier"] == pytest.approx(0.36 + 0.49 + 0.01)


def test_iou_leaves_absent_classes_out_and_counts_withheld_labels_as_misses(label_set):
    evaluator = Evaluator(label_set)
    predicted = row([0, 0, 1, 255, 2], np.uint8)
    evaluator.update(Prediction(labels=predicted), row([0, 1, 1, 1, 255], np.uint8))
    values = evaluator.result()["semantic"]
    assert values["class_iou"] == {"a": 0.5, "b": pytest.approx(1 / 3), "c": None} | dict.fromkeys(
        "de"
    )
    assert values["miou"] == pytest.approx(5 / 12)
    assert values["pixel_accuracy"] == 0.5
    assert values["withheld_fraction"] == 0.25


def test_sparsification_error_of_rates(label_set):
    # By uncertainty: right, wrong, right, wrong. Mean risk (0 + 1/2 + 1/3 + 1/2)/4 = 1/3;
    # the oracle's order right, right, wrong, wrong gives (0 + 0 + 1/3 + 1/2)/4 = 5/24.
    labels = row([0, 1, 0, 1], np.uint8)
    prediction = Prediction(labels=labels, semantic_entropy=row([0.1, 0.2, 0.3, 0.4]))
    evaluator = Evaluator(label_set)
    evaluator.update(prediction, np.zeros_like(labels))
    values = evaluator.result()["semantic"]
    assert values["aurc"] == pytest.approx(1 / 3)
    assert values["ause"] == pytest.approx(1 / 3 - 5 / 24)
    assert values["ause_random"] == pytest.approx(1 / 2 - 5 / 24)
    assert values["error_auroc"] == pytest.approx(3 / 4)


def test_sparsification_error_of_depth():
    # Errors 1, 3, 2 by rising variance: RMSE of the first r is 1, √5, √(14/3); the oracle's order
    # 1, 2, 3 gives 1, √(5/2), √(14/3). Squared errors in the oracle's order come from their bins,
    # which with three pixels do not yet average out.
    truth = np.full((1, 3), 10, np.float32)
    prediction = Prediction(depth=truth + row([1.0, 3.0, 2.0]), depth_variance=row([0.1, 0.2, 0.3]))
    evaluator = Evaluator(depth_range=(0.0, 80.0))
    evaluator.update(prediction, depth=truth)
    values = evaluator.result()["depth"]
    assert values["ause"] == pytest.approx((5**0.5 - 2.5**0.5) / 3, rel=2e-3)
    assert values["ause_random"] == pytest.approx(
        (14 / 3) ** 0.5 - (1 + 2.5**0.5 + (14 / 3) ** 0.5) / 3, rel=2e-3
    )
