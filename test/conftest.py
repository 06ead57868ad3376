"""What all tests share: what engines compile is kept for this run only; a tiny model."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emu_perception.labels import load_label_set
from emu_perception.model_file import ModelSpec, save_model

# At import, before any engine or child process asks.
os.environ["EMU_CACHE_DIR"] = tempfile.mkdtemp(prefix="emu_test_cache_")
atexit.register(shutil.rmtree, os.environ["EMU_CACHE_DIR"], ignore_errors=True)

ModelWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> ModelWriter:
    """Writes real model files: small SegDepthFormers with random weights, for CamVid's classes.

    Keywords are fields of the header; `depth_mean` is about what they predict, in metres, `folder`
    the name of the folder.
    """

    def write(*, depth_mean: float = 10.0, folder: str = "model", **changes: Any) -> Path:
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
        network = spec.build()
        if "depth" in spec.tasks:
            network.initialise_depth_mean(depth_mean)
        path = tmp_path_factory.mktemp(folder) / "tiny.safetensors"
        save_model(path, network, spec)
        return path

    return write
