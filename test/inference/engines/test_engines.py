"""Every engine says what PyTorch says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emu_perception.inference.engines.base import choose_engine, choose_precision
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set


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


@pytest.mark.parametrize(
    ("tasks", "backbone"),
    [
        (("semantic", "depth"), "mit_b0"),
        (("semantic", "depth"), "tf_efficientnet_lite0"),
        (("semantic",), "tf_efficientnet_lite0"),
        (("depth",), "tf_efficientnet_lite0"),
    ],
)
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


def test_a_signal_finds_its_stack_after_engines_came_and_went() -> None:
    """In a process of its own: the failure is a crash."""
    pytest.importorskip("openvino")
    code = f"""
import faulthandler, gc, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_engines import Predictor, model
faulthandler.enable()
signal.signal(signal.SIGUSR2, lambda *arguments: print("handled", flush=True))
first, second = (Predictor(model(("depth",)), device="cpu", engine="openvino") for _ in range(2))
first.close(), second.close()
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "handled"


def test_results_outlive_the_next_frame() -> None:
    pytest.importorskip("openvino")
    predictor = Predictor(model(), device="cpu", engine="openvino")
    first = predictor.predict(np.full((64, 96, 3), 40, np.uint8))
    kept = first.depth.copy()
    predictor.predict(np.full((64, 96, 3), 220, np.uint8))
    assert np.array_equal(first.depth, kept, equal_nan=True)


def test_choices() -> None:
    cpu, cuda = "cpu", "cuda"
    assert choose_engine("auto", cuda) == "pytorch"
    assert choose_precision("auto", cuda) == "fp16" and choose_precision("auto", cpu) == "fp32"
    with pytest.raises(
        ValueError,
        match=r"engine must be auto, openvino, onnxruntime, pytorch, .*, got 'magic'",
    ):
        choose_engine("magic", cpu)
    with pytest.raises(ValueError, match="runs on the CPU"):
        choose_engine("openvino", cuda)
    with pytest.raises(ValueError, match="'cuda_graph' runs on a GPU, not on 'cpu'"):
        choose_engine("cuda_graph", cpu)
    with pytest.raises(ValueError, match="fp32 or bf16"):
        Predictor(model(), device="cpu", precision="fp16", engine="openvino")


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["pytorch", "cuda_graph"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 3e-2)])
def test_a_gpu_says_what_the_cpu_says(engine: str, precision: str, tolerance: float) -> None:
    made = model()
    reference = Predictor(made, device="cpu", engine="pytorch")
    predictor = Predictor(model(), device="cuda", precision=precision, engine=engine)
    generator = np.random.default_rng(1)
    sizes = [(64, 96), (80, 100), (64, 96)]  # recorded, recorded anew, replayed
    for size in sizes:
        image = generator.integers(0, 256, (*size, 3), np.uint8)
        a, b = reference.predict(image), predictor.predict(image)
        resized = size == (80, 100)
        share, limit = (0.99, max(tolerance, 5e-3)) if resized else (0.999, tolerance)
        assert (a.labels == b.labels).mean() >= (share if precision == "fp32" else 0.98)
        for name in ("confidence", "semantic_entropy", "depth", "depth_variance"):
            x, y = getattr(a, name), getattr(b, name)
            assert np.nanmax(np.abs(x - y)) <= limit * np.nanmax(np.abs(x)), name
    predictor.close()
    torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() == 0


@pytest.mark.gpu
def test_maps_on_a_gpu_outlive_the_next_frame() -> None:
    predictor = Predictor(model(), device="cuda", engine="cuda_graph")
    first = predictor.predict_on_device(np.full((64, 96, 3), 40, np.uint8))["depth"]
    kept = first.clone()
    predictor.predict_on_device(np.full((64, 96, 3), 220, np.uint8))
    assert torch.equal(first.nan_to_num(), kept.nan_to_num())
