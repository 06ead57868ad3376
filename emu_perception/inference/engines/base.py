"""The engines' common interface and their choice. Imports no runtime."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.inference.postprocessing import MapSettings

if TYPE_CHECKING:
    import torch.nn as nn

    from emu_perception.inference.model_file import DeployedModel, LoadedModel

PRECISIONS = ("fp32", "fp16", "bf16")
ENGINES = {
    "openvino": "emu_perception.inference.engines.openvino:OpenVINOEngine",
    "onnxruntime": "emu_perception.inference.engines.onnxruntime:ONNXRuntimeEngine",
    "pytorch": "emu_perception.inference.engines.pytorch:PyTorchEngine",
    "cuda_graph": "emu_perception.inference.engines.cuda_graph:CUDAGraphEngine",
    "compiled": "emu_perception.inference.engines.pytorch:CompiledEngine",
}
"""Importable by name; a runtime is imported when its engine is chosen."""
DEPLOYED = {"openvino": ("cpu",), "onnxruntime": ("cpu", "cuda", "tensorrt")}
"""Engines of `.onnx` files, and their devices."""


@dataclass(frozen=True)
class Frame:
    """One image and how the network sees it."""

    image: np.ndarray
    """uint8 RGB `(H, W, 3)`, contiguous."""
    network_size: tuple[int, int]
    """Height and width at which the network sees it."""
    output_size: tuple[int, int]
    """Height and width of the maps."""
    camera: Intrinsics | None
    """The camera at the network's size, for a network that takes rays; others get None."""


class Engine(Protocol):
    """One image in, maps out."""

    def run(self, frame: Frame, wanted: frozenset[str], settings: MapSettings) -> Mapping[str, Any]:
        """Run the network once.

        Args:
            frame: the image.
            wanted: names of `Prediction` fields that the model can fill, and `FEATURES`; nothing
                else is computed.
            settings: how raw outputs become maps.

        Returns:
            The wanted maps by name: NumPy arrays, or torch tensors on the engine's device. Features
            are `(E,)` float32, the encoder's coarsest map averaged over the image (of an ensemble,
            the first member's); left out for a network without an encoder.
        """
        ...

    def close(self) -> None:
        """Release the network and the device's memory."""
        ...


def choose_device(device: str, deployed: bool = False) -> str:
    """A device's name: `cpu`, `cuda`, `cuda:1`, or `tensorrt`.

    Args:
        device: a name or `auto`: CUDA where torch finds a GPU, the CPU for a `.onnx` file.
        deployed: for a `.onnx` file.

    Raises:
        ValueError: an unknown name, or CUDA requested where there is none.
    """
    kind = device.split(":")[0]
    kinds = ("cpu", "cuda", "tensorrt") if deployed else ("cpu", "cuda")
    if device != "auto" and kind not in kinds:
        known = f"{', '.join(('auto', *kinds[:-1]))} or {kinds[-1]}"
        raise ValueError(f"device must be {known}, got '{device}'")
    if deployed:
        return "cpu" if device == "auto" else device
    if device == "cpu":
        return device
    import torch

    if not torch.cuda.is_available():
        if device == "auto":
            return "cpu"
        raise ValueError(f"device is '{device}', but torch finds no CUDA device")
    return "cuda" if device == "auto" else device


def choose_engine(
    engine: str, device: str, stochastic: bool = False, deployed: bool = False
) -> str:
    """The engine for a model on a device.

    Args:
        engine: a name, or `auto`: OpenVINO on a CPU where it is installed, else ONNX Runtime for a
            `.onnx` file and PyTorch for a `.safetensors` file.
        device: that it will run on, from `choose_device`.
        stochastic: the network samples its dropout, which only PyTorch does.
        deployed: for a `.onnx` file.

    Raises:
        ValueError: an unknown name, or an engine that does not serve the file or the device.
    """
    kind = device.split(":")[0]
    if engine == "auto":
        installed = importlib.util.find_spec("openvino") is not None
        if kind == "cpu" and installed and not stochastic:
            return "openvino"
        return "onnxruntime" if deployed else "pytorch"
    if engine not in ENGINES:
        raise ValueError(f"engine must be auto, {', '.join(ENGINES)}, got '{engine}'")
    if deployed and engine not in DEPLOYED:
        raise ValueError(
            f"the engine '{engine}' runs .safetensors files; a .onnx file needs "
            f"{' or '.join(DEPLOYED)}"
        )
    if engine == "onnxruntime" and not deployed:
        raise ValueError("the engine 'onnxruntime' runs .onnx files: write one with `emu export`")
    if engine == "openvino" and stochastic:
        raise ValueError("the engine 'openvino' removes dropout; Monte Carlo Dropout needs pytorch")
    if engine == "cuda_graph" and kind != "cuda":
        raise ValueError(f"the engine 'cuda_graph' runs on a GPU, not on '{device}'")
    if kind not in DEPLOYED.get(engine, (kind,)):
        place = "the CPU" if engine == "openvino" else " or ".join(DEPLOYED[engine])
        raise ValueError(f"the engine '{engine}' runs on {place}, not on '{device}'")
    return engine


def choose_precision(
    precision: str, device: str, engine: str = "", checked: Collection[str] = ("fp32",)
) -> str:
    """The precision of a model on a device.

    Args:
        precision: a name, or `auto`: fp16 on a GPU; bf16 with OpenVINO on a CPU that computes in
            it, if the model file was checked in it; else fp32.
        device: from `choose_device`.
        engine: from `choose_engine`.
        checked: the file's `checked_precisions`.

    Raises:
        ValueError: an unknown name.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be auto, {', '.join(PRECISIONS)}, got '{precision}'")
        return precision
    if engine == "openvino" and "bf16" in checked and _computes_in_bf16():
        return "bf16"
    half = device.startswith("tensorrt") or (device.startswith("cuda") and engine != "onnxruntime")
    return "fp16" if half else "fp32"


def _computes_in_bf16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX; elsewhere OpenVINO emulates bf16, which is slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def make_engine(
    name: str, model: LoadedModel | DeployedModel, device: str, precision: str
) -> Engine:
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
    engine: Engine = factory(model, device, precision)
    return engine


def fold(network: nn.Module) -> nn.Module:
    """The network's form for inference: folded, where it can be."""
    form = getattr(network, "fold", None)
    return form() if callable(form) else network
