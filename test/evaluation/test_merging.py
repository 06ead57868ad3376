"""Predictions in fine classes against truth in coarse ones."""

from __future__ import annotations

import numpy as np
import pytest

from emu_perception.evaluation.merging import Merging, resolved
from emu_perception.labels import LabelSet, load_label_set
from emu_perception.prediction import Prediction


def test_probabilities_of_the_covered_classes_are_added() -> None:
    fine, coarse = load_label_set("cityscapes"), load_label_set("camvid")
    merging = Merging.of(fine, coarse)
    assert merging is not None and merging.label_set is coarse
    probabilities = np.zeros((19, 1, 2), np.float32)
    # Car is the likeliest single class, vegetation and terrain together are likelier.
    for name, value in (("car", 0.4), ("vegetation", 0.3), ("terrain", 0.3)):
        probabilities[fine.index(name)] = value
    labels = np.full((1, 2), fine.index("car"), np.uint8)
    labels[0, 1] = 255  # rejected by the predictor
    merged = merging.merged(Prediction(labels=labels, probabilities=probabilities))
    assert merged.labels is not None and merged.confidence is not None
    assert merged.labels.tolist() == [[coarse.index("tree"), 255]]
    assert merged.confidence[0].tolist() == pytest.approx([0.6, 0])
    assert merged.semantic_entropy is not None
    expected = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6))
    assert merged.semantic_entropy[0, 0] == pytest.approx(expected, abs=1e-6)
    assert merged.probabilities is not None and merged.probabilities.shape == (11, 1, 2)


def test_every_cityscapes_class_is_covered_by_one_of_camvid() -> None:
    merging = Merging.of(load_label_set("cityscapes"), load_label_set("camvid"))
    assert merging is not None
    assert sorted(i for ids in merging.classes for i in ids) == list(range(19))


def test_no_merging_without_a_mapping() -> None:
    fine = load_label_set("cityscapes")
    other = LabelSet("other", ("road",), ((0, 0, 0),))
    assert Merging.of(fine, fine) is None and Merging.of(fine, other) is None
    assert Merging.of(None, other) is None


def test_coarse_truth_counts_the_predicted_class_where_it_is_covered() -> None:
    truth = np.array([[19, 19, 3, 255]], np.uint8)
    predicted = np.array([[8, 2, 2, 2]], np.uint8)
    found = resolved(truth, predicted, [(7, 8)], 19)
    assert found.tolist() == [[8, 7, 3, 255]]
    assert truth[0, 0] == 19  # the data set's own array stays as it is
