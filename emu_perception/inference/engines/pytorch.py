"""PyTorch, eager: the reference that every other engine must equal."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.inference.engines.activation import (
    Normalization,
    activation_maps,
    activations,
    camera_tensor,
    find_encoder,
    finish_maps,
    prepare,
)
from emu_perception.inference.engines.base import Frame, fold
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.postprocessing import MapSettings

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def forget_workspaces() -> None:
    """Let go of what cuBLAS keeps on the GPU for each stream: torch before 2.15 never does."""
    torch._C._cuda_clearCublasWorkspaces()


class PyTorchEngine:
    """Runs a network's folded form eagerly, on a CPU or a GPU."""

    def __init__(self, model: LoadedModel, device: str, precision: str) -> None:
        self._spec, self._device = model.spec, torch.device(device)
        self._dtype = DTYPES[precision]
        self._normalize = Normalization(model.spec).to(self._device)
        self._network = (
            fold(model.network)
            .to(device=self._device, dtype=self._dtype)
            .to(memory_format=torch.channels_last)
            .eval()
        )

    @torch.inference_mode()
    def run(self, frame: Frame, wanted: frozenset[str], settings: MapSettings) -> dict[str, Tensor]:
        """See `Engine.run`."""
        maps = activation_maps(wanted, settings)
        modules: dict[str, nn.Module] = dict(activations(self._spec, maps, frame.output_size))
        pixels = prepare(frame.image, frame.network_size, self._device)
        found = self._maps(pixels, self._camera(frame), modules)
        return finish_maps(found, wanted, settings)

    @torch.inference_mode()
    def features(self, frame: Frame) -> np.ndarray | None:
        """See `Engine.features`."""
        encoder = find_encoder(self._network)
        if encoder is None:
            return None
        pixels = prepare(frame.image, frame.network_size, self._device)
        x = self._normalize(pixels, self._camera(frame))
        coarsest = encoder(x.to(self._dtype, memory_format=torch.channels_last))[-1]
        return coarsest.float().mean((0, 2, 3)).cpu().numpy()

    def _camera(self, frame: Frame) -> Tensor | None:
        return None if frame.camera is None else camera_tensor(frame.camera).to(self._device)

    def _maps(
        self, image: Tensor, camera: Tensor | None, activations: Mapping[str, nn.Module]
    ) -> dict[str, Tensor]:
        """`(1, 3, h, w)` in 0-255, and fx, fy, cx, cy, to the maps of activations by task."""
        x = self._normalize(image, camera).to(self._dtype, memory_format=torch.channels_last)
        outputs = self._network(x).by_task()
        maps: dict[str, Tensor] = {}
        for task, activation in activations.items():
            form = self._form(activation, outputs[task])
            maps.update(zip(form.wanted, form(outputs[task]), strict=True))  # type: ignore[arg-type]
        return maps

    def _form(self, activation: nn.Module, raw: Tensor) -> nn.Module:
        """How an activation is computed for such raw outputs: here as it is written."""
        return activation

    def close(self) -> None:
        """Give the device's memory back."""
        del self._network, self._normalize
        if self._device.type == "cuda":
            gc.collect()  # a compiled network refers to itself
            forget_workspaces()
            torch.cuda.empty_cache()


class CompiledEngine(PyTorchEngine):
    """The same, its network compiled by `torch.compile` once per size: takes a C++ compiler."""

    def __init__(self, model: LoadedModel, device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self._network.compile(dynamic=False)
