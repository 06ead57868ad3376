"""Every engine says what PyTorch says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emu_perception.engines.base import choose_engine, choose_precision
from emu_perception.labels import load_label_set
from emu_perception.model_file import LoadedModel, ModelSpec
from emu_perception.predictor import Predictor


def model(tasks: tuple[str, ...] = ("semantic", "depth"), backbone: str = "mit_b0") -> LoadedModel:
    torch.manual_seed(5)
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone=backbone,
        tasks=tasks,
        arguments={"width": 16},
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
        depth_range=(0.1, 1000.0),
    )
    network = spec.build()
    if "depth" in tasks:
        network.initialise_depth_mean(20.0)
    return LoadedModel(network.eval(), spec, Path("memory"))


@pytest.mark.parametrize("backbone", ["mit_b0", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("tasks", [("semantic", "depth"), ("semantic",), ("depth",)])
def test_openvino_equals_pytorch(tasks: tuple[str, ...], backbone: str) -> None:
    pytest.importorskip("openvino")
    image = np.random.default_rng(1).integers(0, 256, (80, 100, 3), np.uint8)
    results = [
        Predictor(model(tasks, backbone), device="cpu", engine=engine)
        for engine in ("pytorch", "openvino")
    ]
    wanted = results[0].available_maps
    a, b = (p.predict(image, maps=wanted) for p in results)
    for name in wanted - {"labels"}:
        x, y = getattr(a, name), getattr(b, name)
        assert x.shape == y.shape and x.dtype == y.dtype
        same = np.isnan(x) == np.isnan(y)
        assert same.mean() > 0.999
        assert np.nanmax(np.abs(x - y)) <= 1e-3 * np.nanmax(np.abs(x)), name
    if "labels" in wanted:
        assert (a.labels == b.labels).mean() >= 0.999


def test_results_outlive_the_next_frame() -> None:
    pytest.importorskip("openvino")
    predictor = Predictor(model(), device="cpu", engine="openvino")
    first = predictor.predict(np.full((64, 96, 3), 40, np.uint8))
    kept = first.depth.copy()
    predictor.predict(np.full((64, 96, 3), 220, np.uint8))
    assert np.array_equal(first.depth, kept, equal_nan=True)


def test_choices() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_engine("auto", cuda) == "pytorch"
    assert choose_precision("auto", cuda) == "fp16" and choose_precision("auto", cpu) == "fp32"
    with pytest.raises(
        ValueError, match="engine must be auto, pytorch, openvino, compiled, got 'magic'"
    ):
        choose_engine("magic", cpu)
    with pytest.raises(ValueError, match="runs on the CPU"):
        choose_engine("openvino", cuda)
    with pytest.raises(ValueError, match="fp32 or bf16"):
        Predictor(model(), device="cpu", precision="fp16", engine="openvino")
