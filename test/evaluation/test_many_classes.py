"""Cells of histograms whose numbers exceed a byte, though the ids that make them do not."""

import numpy as np
import pytest

from emu_perception.evaluation import Evaluator, ranking
from emu_perception.evaluation.semantic import confusion_matrix
from emu_perception.labels import LabelSet
from emu_perception.prediction import Prediction

CLASSES = 40


@pytest.fixture
def ids() -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes, some of them without a label."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, CLASSES, (2, 30, 40)).astype(np.uint8)
    found[1] = np.where(rng.random((30, 40)) < 0.5, found[0], found[1])
    found[rng.random(found.shape) < 0.1] = 255
    return found[0], found[1]


def test_confusion_of_many_classes(ids: tuple[np.ndarray, np.ndarray]) -> None:
    expected = np.zeros((CLASSES, CLASSES + 1))
    for true, said in zip(*(each.reshape(-1).tolist() for each in ids), strict=True):
        if true != 255:
            expected[true, min(said, CLASSES)] += 1
    assert np.array_equal(confusion_matrix(*ids, CLASSES), expected)


def test_bins_of_bytes() -> None:
    bins, flags = np.array([0, 200, 255, 255], np.uint8), np.array([1, 0, 1, 1], bool)
    found = ranking.split_count(bins, flags)
    assert found[[0, 200, 255]].tolist() == [[0, 1], [1, 0], [0, 2]]
    assert found.sum() == 4


def test_calibration_of_many_classes(ids: tuple[np.ndarray, np.ndarray]) -> None:
    truth, said = ids
    names = tuple(f"class {i}" for i in range(CLASSES))
    evaluator = Evaluator(LabelSet("many", names, tuple((i, 0, 0) for i in range(CLASSES))))
    confidence = np.where(said == 255, 0, 0.8).astype(np.float32)
    evaluator.update(Prediction(labels=said, confidence=confidence), truth)
    judged = (truth != 255) & (said != 255)
    accuracy = (truth == said)[judged].mean()
    result = evaluator.result(replicates=0)
    assert result["semantic"]["ece"] == pytest.approx(abs(0.8 - accuracy), abs=1e-6)
    union = [((truth == i) | (said == i)) & (truth != 255) for i in range(CLASSES)]
    iou = [((truth == i) & (said == i)).sum() / u.sum() for i, u in enumerate(union)]
    assert result["semantic"]["miou"] == pytest.approx(np.mean(iou))
