"""What all tests share: what engines compile is kept for this run only; a tiny model."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from options import (  # noqa: F401  (hooks)
    pytest_addoption,
    pytest_generate_tests,
    pytest_sessionfinish,
)

from emu_perception.inference.model_file import LoadedModel, save_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set

# A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS = Path(__file__).resolve().parent

# At import, before any engine or child process asks.
os.environ["EMU_CACHE_DIR"] = tempfile.mkdtemp(prefix="emu_test_cache_")
atexit.register(shutil.rmtree, os.environ["EMU_CACHE_DIR"], ignore_errors=True)

# A test that imports OpenVINO before the package does would have it report every conversion over
# the network, from a forked process each.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Processes that test side by side share the cores; so do their children.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ["OMP_NUM_THREADS"] = str(_threads)
    torch.set_num_threads(_threads)

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of nodes with `ros`, and skip those marked `gpu` without a GPU."""
    for item in items:
        if {"ros", "demo"} & set(item.path.relative_to(TESTS).parts):
            item.add_marker(pytest.mark.ros)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


ModelMaker = Callable[..., LoadedModel]
ModelWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def make_model() -> ModelMaker:
    """Makes small SegDepthFormers with random weights, for CamVid's classes.

    Keywords are fields of the header; `depth_mean` is about what they predict, in metres.
    """

    def make(*, depth_mean: float = 10.0, **changes: Any) -> LoadedModel:
        torch.manual_seed(0)
        values: dict[str, Any] = {
            "architecture": "segdepthformer",
            "backbone": "mit_b0",
            "tasks": ("semantic", "depth"),
            "arguments": {"width": 16},
            "label_set": load_label_set("camvid"),
            "input_size": (64, 64),
        }
        spec = ModelSpec(**(values | changes))
        network: Any = spec.build()
        if "depth" in spec.tasks:
            network.initialise_depth_mean(depth_mean)
        return LoadedModel(network.eval(), spec, Path("memory"))

    return make


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory, make_model: ModelMaker) -> ModelWriter:
    """Writes what `make_model` makes to real files; `folder` is the name of the folder."""

    def write(*, folder: str = "model", **keywords: Any) -> Path:
        model = make_model(**keywords)
        path = tmp_path_factory.mktemp(folder) / "tiny.safetensors"
        save_model(path, model.network, model.spec)
        return path

    return write
