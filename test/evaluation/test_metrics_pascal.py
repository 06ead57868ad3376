"""Human parts, saliency and matched boundaries, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from emu_perception.evaluation.human_parts import parts_sums, parts_values
from emu_perception.evaluation.saliency import saliency_sums, saliency_values

pytest.importorskip("skimage")
from emu_perception.evaluation.boundary_matching import match_boundaries, optimal_f


def test_human_parts() -> None:
    truth = np.array([[0, 1, 1, 2], [255, 0, 2, 2]], np.uint8)
    predicted = np.array([[0, 1, 2, 2], [3, 0, 2, 0]], np.uint8)
    figures = parts_values(parts_sums(predicted, truth))
    # Background 2 of 3, head 1 of 2, torso 2 of 4; the pixel of an unknown part counts for none.
    assert figures["class_iou"]["background"] == pytest.approx(2 / 3)
    assert figures["class_iou"]["upper arms"] is None
    assert figures["miou"] == pytest.approx((2 / 3 + 1 / 2 + 2 / 4) / 3)


def test_saliency_averages_precision_and_recall_before_f() -> None:
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    first = saliency_sums(np.array([[0.95, 0.1, 0.1, 0.1]]), truth)  # precision 1, recall 1/2
    second = saliency_sums(np.array([[0.95, 0.95, 0.95, 0.1]]), truth)  # 2/3, 1
    figures = saliency_values({"saliency": first["saliency"] + second["saliency"]})
    precision, recall = (1 + 2 / 3) / 2, (1 / 2 + 1) / 2
    assert figures["max_f"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert figures["max_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["images"] == 2
    nothing = saliency_sums(np.full((1, 2), 0.1), np.array([[0, 255]], np.uint8))
    assert saliency_values(nothing)["max_iou"] == 1


def test_boundaries_match_one_to_one_within_the_tolerance() -> None:
    truth = np.zeros((60, 80), np.uint8)  # the diagonal is 100: within 0.75 pixels
    truth[30, 10:70] = 1
    exact = match_boundaries(truth * 0.5, truth)
    assert optimal_f(exact) == 1
    assert exact[1, -1] == 0  # nothing reaches a threshold of 0.95
    beside = np.roll(truth, 1, axis=0)
    assert optimal_f(match_boundaries(beside * 0.5, truth)) == 0
    # At four times the size a pixel beside is within the tolerance, but two lines match only once.
    truth = np.zeros((240, 320), np.uint8)
    truth[120, 40:280] = 1
    both = np.zeros(truth.shape)
    both[118, 40:280] = both[122, 40:280] = 0.5
    matched, predicted, true = match_boundaries(both, truth)[:, 0]
    assert (matched, predicted, true) == (240, 480, 240)
    assert optimal_f(match_boundaries(both, truth)) == pytest.approx(2 * 240 / 720)
    unknown = truth.copy()
    unknown[100:121] = 255
    assert optimal_f(match_boundaries(both, unknown)) is None
