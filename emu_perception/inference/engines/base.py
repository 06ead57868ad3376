"""The engines' common interface and their choice."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Protocol

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.camera import Intrinsics
from emu_perception.inference.model_file import LoadedModel

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ENGINES = {
    "pytorch": "emu_perception.inference.engines.pytorch:PyTorchEngine",
    "openvino": "emu_perception.inference.engines.openvino:OpenVINOEngine",
    "cuda_graph": "emu_perception.inference.engines.cuda_graph:CUDAGraphEngine",
    "compiled": "emu_perception.inference.engines.pytorch:CompiledEngine",
}
"""Importable by name; a runtime is imported when its engine is asked for."""


class Engine(Protocol):
    """One image in, maps before any threshold out, all on the engine's device."""

    def run(
        self,
        image: np.ndarray,
        network_size: tuple[int, int],
        output_size: tuple[int, int],
        wanted: frozenset[str],
        camera: Intrinsics | None = None,
    ) -> dict[str, Tensor]:
        """Run the network once.

        Args:
            image: uint8 RGB `(H, W, 3)`, contiguous.
            network_size: height and width at which the network sees it.
            output_size: height and width of the maps.
            wanted: some of `activation.MAPS`; nothing else is computed.
            camera: of the network's input, for a network that takes rays; other ones get None.

        Returns:
            The wanted maps `(H, W)` by name (`probabilities` with a leading class axis); those of
            a task that the network lacks are left out.
        """
        ...

    def close(self) -> None:
        """Release the network and the device's memory."""
        ...


def choose_device(device: str) -> torch.device:
    """`auto` (CUDA where there is a GPU), `cpu` or `cuda` (also `cuda:1`) to a torch device.

    Raises:
        ValueError: an unknown name, or CUDA asked for where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and not device.startswith("cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got '{device}'")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device '{device}' was asked for, but torch finds no CUDA device here")
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """`auto` (fp16 on CUDA, else fp32), `fp32`, `fp16` or `bf16`.

    Raises:
        ValueError: an unknown name.
    """
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be auto, {', '.join(PRECISIONS)}, got '{precision}'")
    return precision


def choose_engine(engine: str, device: torch.device, stochastic: bool = False) -> str:
    """`auto` is OpenVINO on a CPU where it is installed, else PyTorch.

    Args:
        engine: a name, or `auto`.
        device: that it will run on.
        stochastic: the network samples its dropout, which only PyTorch does.

    Raises:
        ValueError: an unknown name, one that does not serve the device, or OpenVINO asked for
            sampled dropout.
    """
    if engine == "auto":
        on_cpu = device.type == "cpu"
        installed = importlib.util.find_spec("openvino") is not None
        return "openvino" if on_cpu and installed and not stochastic else "pytorch"
    if engine not in ENGINES:
        raise ValueError(f"engine must be auto, {', '.join(ENGINES)}, got '{engine}'")
    if engine == "openvino" and stochastic:
        raise ValueError("the engine 'openvino' removes dropout; Monte Carlo Dropout needs pytorch")
    if engine == "openvino" and device.type != "cpu":
        raise ValueError(f"the engine 'openvino' runs on the CPU, not on '{device}'")
    if engine == "cuda_graph" and device.type != "cuda":
        raise ValueError(f"the engine 'cuda_graph' runs on a GPU, not on '{device}'")
    return engine


def make_engine(name: str, model: LoadedModel, device: torch.device, precision: str) -> Engine:
    """The engine of a name from `choose_engine`.

    Raises:
        ValueError: its runtime is not installed.
    """
    module, attribute = ENGINES[name].split(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the engine '{name}' needs '{error.name}', which is not installed"
        ) from error
    return factory(model, device, precision)


def fold(network: nn.Module) -> nn.Module:
    """The network's form for inference: folded, where it can be."""
    form = getattr(network, "fold", None)
    return form() if callable(form) else network
