"""A task registered here is trained, evaluated, exported and published like the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightning")
from emu_perception.data import catalogue
from emu_perception.data.dataset import FileDataset, Item, Readers
from emu_perception.evaluation import scorers, sums
from emu_perception.experiments.assess import score
from emu_perception.images import write_png
from emu_perception.inference.export import export
from emu_perception.inference.model_file import load_model
from emu_perception.inference.predictor import Predictor
from emu_perception.tasks import TASKS, DenseTask, register_task
from emu_perception.training import run, validation
from emu_perception.training.config import TrainConfig
from emu_perception.training.multitask import task_losses

from .conftest import SIZE, wait_for

SHADE = DenseTask(
    "shade",
    "binary",
    "shade",
    2,
    "shade.accuracy",
    True,
    "shade",
    "probability of a dark pixel",
)


def shade_sums(predicted: np.ndarray, truth: np.ndarray) -> sums.Sums:
    right = (predicted >= 0.5) == truth
    return {"shade": np.array([right.sum(), right.size], np.float64)}


def shade_values(found: sums.Sums) -> dict[str, Any]:
    right, pixels = found["shade"]
    return {"accuracy": right / pixels}


@pytest.fixture
def shade(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task, its loss, its metrics and a data set; forgotten after the test."""
    for table in (
        TASKS,
        catalogue._ENTRIES,
        task_losses._LOSSES,
        validation._METRICS,
        scorers._SCORERS,
    ):
        monkeypatch.setitem(table, "shade", None)  # type: ignore[arg-type]
        del table["shade"]  # what the test adds is removed with this entry
    register_task(SHADE)
    task_losses.register_loss("shade", "cross_entropy")(task_losses.cross_entropy)
    validation.register_validation("shade", validation.f1("shade_f1"))
    scorers.register_scorer(
        "shade", scorers.Scorer(shade_sums, shade_values, shade_values, ("shade",))
    )

    @catalogue.register_dataset("shade", splits=("train",), evaluation_split="train")
    def build(root: Path, *, split: str) -> FileDataset:
        """Pictures of noise, dark on one side."""
        files = sorted(root.glob("*.png"))
        items = [Item(p.stem, split, p, others={"shade": p}) for p in files]

        def dark(item: Item) -> np.ndarray:
            image = readers.image(item.image)
            return (image.mean(2) < 128).astype(np.uint8)

        readers = Readers(others={"shade": dark})
        return FileDataset(items, readers)


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.integers(128, 256, (64, 96, 3), np.uint8)
        image[:, : 20 * (number + 1)] -= 128
        write_png(folder / f"{number}.png", image)


@pytest.mark.usefixtures("shade")
def test_a_registered_task_is_trained_evaluated_exported_and_published(
    start_node: Any, robot: Any, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "data")
    split = {"name": "shade", "root": str(tmp_path / "data"), "split": "train"}
    config = {
        "output": str(tmp_path / "run"),
        "model": {
            "architecture": "densemtl",
            "backbone": "resnet10t",
            "tasks": ["shade"],
            "arguments": {"width": 0.25, "dilated": False},
            "input_size": [64, 96],
        },
        "data": {
            "train": [split],
            "validation": split,
            "crop": [64, 96],
            "batch_size": 2,
            "workers": 0,
            "augmentation": {"scale": [1.0, 1.0], "scale_changes": "nothing"},
        },
        "trainer": {"epochs": 1, "accelerator": "cpu", "devices": 1},
    }
    file = run.train(TrainConfig.model_validate(config), progress=False)
    model = load_model(file)
    assert model.spec.metrics["training"]["steps"] == 2
    assert 0 <= model.spec.metrics["shade train"]["shade_f1"] <= 1

    predictor = Predictor(model, "cpu", "fp32", "pytorch")
    found = score(predictor, catalogue.build_dataset("shade", tmp_path / "data", "train"))
    assert 0 <= found["shade.accuracy"] <= 1
    assert list(found.values["intervals"]) == ["shade.accuracy"]

    deployed = tmp_path / "shade.onnx"
    assert export(model, deployed).keys() == {"shade"}

    node = start_node(model=str(deployed), engine="openvino")
    wait_for(lambda: node.state == "active", "the node to become active")
    robot.listen("shade")
    image = robot.send_image()
    message = robot.wait_for_answer(image, "shade")
    assert (message.height, message.width, message.encoding) == (*SIZE, "32FC1")
    pixels = np.frombuffer(image.data, np.uint8).reshape(*SIZE, 3)
    expected = predictor.predict(pixels).get("shade")
    published = np.frombuffer(message.data, np.float32).reshape(SIZE)
    assert np.allclose(published, expected, atol=2e-3)


def test_a_task_is_registered_once_and_by_its_kind() -> None:
    with pytest.raises(ValueError, match="'depth' exists already"):
        register_task(TASKS["depth"])
    with pytest.raises(ValueError, match="only semantic and depth predict distances"):
        register_task(DenseTask("far", "depth", "far", 1, "far.rmse", False, "far", "metres"))
