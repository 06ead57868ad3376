"""PyTorch, eager: the reference that every other engine must equal."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.camera import Intrinsics
from emu_perception.inference.engines.activation import (
    Normalization,
    activations,
    camera_tensor,
    prepare,
)
from emu_perception.inference.engines.base import PRECISIONS, fold
from emu_perception.inference.model_file import LoadedModel


def forget_workspaces() -> None:
    """Let go of what cuBLAS keeps on the GPU for each stream: torch before 2.15 never does."""
    torch._C._cuda_clearCublasWorkspaces()


class PyTorchEngine:
    """Runs a network's folded form eagerly, on a CPU or a GPU."""

    def __init__(self, model: LoadedModel, device: torch.device, precision: str) -> None:
        self._spec, self._device = model.spec, device
        self._dtype = PRECISIONS[precision]
        self._normalize = Normalization(model.spec).to(device)
        self._network = (
            fold(model.network)
            .to(device=device, dtype=self._dtype)
            .to(memory_format=torch.channels_last)
            .eval()
        )

    @torch.inference_mode()
    def run(
        self,
        image: np.ndarray,
        network_size: tuple[int, int],
        output_size: tuple[int, int],
        wanted: frozenset[str],
        camera: Intrinsics | None = None,
    ) -> dict[str, Tensor]:
        """See `Engine.run`."""
        modules: dict[str, nn.Module] = dict(activations(self._spec, wanted, output_size))
        pixels = prepare(image, network_size, self._device)
        seen = None if camera is None else camera_tensor(camera).to(self._device)
        return self._maps(pixels, seen, modules)

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

    def __init__(self, model: LoadedModel, device: torch.device, precision: str) -> None:
        super().__init__(model, device, precision)
        self._network.compile(dynamic=False)
