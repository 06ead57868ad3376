"""Metrics of normals and edges, and the relative gain, on cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.evaluation import Evaluator, relative_gain
from emu_perception.prediction import Prediction
from emu_perception.tasks import TASKS, DenseTask


def test_angles_by_hand() -> None:
    truth = np.zeros((1, 4, 3), np.float32)
    truth[0, :3] = (0, 0, -1)  # the fourth is unknown
    turned = [0.0, 20.0, 90.0, 45.0]
    predicted = np.array(
        [[(0, np.sin(np.radians(a)), -np.cos(np.radians(a))) for a in turned]], np.float32
    )
    evaluator = Evaluator(tasks=["normals"])
    evaluator.update(Prediction(normals=2 * predicted), others={"normals": truth})
    values = evaluator.result(0).values["normals"]
    assert values["pixels"] == 3
    assert values["mean_angular_error"] == pytest.approx(110 / 3, abs=1e-4)
    assert values["rms_angular_error"] == pytest.approx(np.sqrt(8500 / 3), abs=1e-4)
    assert values["median_angular_error"] == pytest.approx(20, abs=0.11)
    assert (values["within_11.25"], values["within_22.5"]) == (1 / 3, 2 / 3)


def test_edges_by_hand() -> None:
    truth = np.array([[1, 1, 1, 0, 0, 0, 255, 0]], np.uint8)
    predicted = np.array([[0.9, 0.8, 0.3, 0.6, 0.1, 0.2, 0.9, 0.1]], np.float32)
    evaluator = Evaluator(tasks=["edges"])
    evaluator.update(Prediction(edges=predicted), others={"edges": truth})
    values = evaluator.result(0).values["edges"]
    assert values["pixels"] == 7
    assert (values["precision"], values["recall"], values["f1"]) == (2 / 3, 2 / 3, 2 / 3)
    # Of those without an edge 3 are right: 2 * 3 / (2 * 3 + 1 + 1).
    assert values["f1_mean"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert values["best_f1"] == pytest.approx(6 / 7) and 0.2 < values["best_threshold"] <= 0.3


@given(st.integers(0, 10_000))
def test_parts_merge_into_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole, parts = Evaluator(tasks=["edges", "normals"]), []
    for _ in range(3):
        normals = rng.normal(size=(4, 5, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        edges = rng.choice(np.array([0, 1, 255], np.uint8), (4, 5))
        said = Prediction(
            normals=rng.normal(size=(4, 5, 3)).astype(np.float32),
            edges=rng.random((4, 5), np.float32),
        )
        part = Evaluator(tasks=["edges", "normals"])
        for evaluator in (whole, part):
            evaluator.update(said, others={"normals": normals, "edges": edges})
        parts.append(part)
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].result(20).values == whole.result(20).values
    assert "normals.mean_angular_error" in whole.result(20).values["intervals"]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="true normals has shape"):
        Evaluator(tasks=["normals"]).update(
            Prediction(normals=np.zeros((4, 5, 3), np.float32)),
            others={"normals": np.zeros((4, 5))},
        )


def test_relative_gain_of_the_published_table() -> None:
    # DenseMTL (arXiv 2206.08927), Cityscapes, segmentation and depth.
    gain = relative_gain({"semantic": 74.95, "depth": 6.649}, {"semantic": 67.93, "depth": 6.622})
    assert gain == pytest.approx(4.963, abs=5e-4)
    assert relative_gain({"normals": 9.0, "edges": 0.6}, {"normals": 10.0, "edges": 0.5}) == (
        pytest.approx(15)
    )


def test_relative_gain_of_several_figures_per_task() -> None:
    # By hand: +10 %, +5 %, 20 % less error, 25 % more error: (10 + 5 + 20 - 25) / 4.
    names = ("semantic.miou_image_mean", "semantic.pixel_accuracy")
    names += ("depth.inverse_mae", "depth.inverse_absrel")
    figures, reference = (0.55, 0.84, 0.008, 0.25), (0.5, 0.8, 0.01, 0.2)
    gain = relative_gain(dict(zip(names, figures)), dict(zip(names, reference)))
    assert gain == pytest.approx(2.5)


def test_relative_gain_of_a_registered_task_has_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = DenseTask(
        "flow",
        "direction",
        "flow",
        3,
        "flow.endpoint_error",
        False,
        "flow",
        "unit vectors",
    )
    monkeypatch.setitem(TASKS, "flow", flow)
    assert relative_gain({"flow": 0.8}, {"flow": 1.0}) == pytest.approx(20)
    gain = relative_gain({"flow.endpoint_error": 0.8}, {"flow.endpoint_error": 1.0})
    assert gain == pytest.approx(20)  # less error is a gain, also by the key that studies use


def test_relative_gain_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same tasks"):
        relative_gain({"semantic": 1.0}, {"depth": 1.0})
    with pytest.raises(ValueError, match="must be positive"):
        relative_gain({"depth": 1.0}, {"depth": 0.0})
