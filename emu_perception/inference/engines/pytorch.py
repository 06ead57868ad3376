"""PyTorch, eager: the reference that every other engine must equal."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.inference.deployment import FEATURES
from emu_perception.inference.engines.activation import (
    Normalization,
    activation_maps,
    activations,
    camera_tensor,
    find_encoder,
    finish_maps,
    prepare,
    watched,
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
        self._encoder = find_encoder(self._network)

    @torch.inference_mode()
    def run(self, frame: Frame, wanted: frozenset[str], settings: MapSettings) -> dict[str, Tensor]:
        """See `Engine.run`."""
        maps = activation_maps(wanted, settings)
        modules: dict[str, nn.Module] = dict(activations(self._spec, maps, frame.output_size))
        pixels = prepare(frame.image, frame.network_size, self._device)
        found = self._maps(pixels, self._camera(frame), modules, FEATURES in wanted)
        return finish_maps(found, wanted, settings)

    def _camera(self, frame: Frame) -> Tensor | None:
        return None if frame.camera is None else camera_tensor(frame.camera).to(self._device)

    def _maps(
        self,
        image: Tensor,
        camera: Tensor | None,
        activations: Mapping[str, nn.Module],
        features: bool,
    ) -> dict[str, Tensor]:
        """`(1, 3, h, w)` in 0-255, and fx, fy, cx, cy, to the maps of activations by task, and to
        the features."""
        x = self._normalize(image, camera).to(self._dtype, memory_format=torch.channels_last)
        with self._watched(features) as coarsest:
            outputs = self._network(x)
        maps: dict[str, Tensor] = {}
        if coarsest:
            maps[FEATURES] = coarsest[0].float().mean((0, 2, 3))
        for task, activation in activations.items():
            form = self._form(activation, outputs[task])
            maps.update(zip(form.wanted, form(outputs[task]), strict=True))  # type: ignore[arg-type]
        return maps

    def _watched(self, features: bool) -> AbstractContextManager[list[Tensor]]:
        """The encoder's coarsest feature map of the run meanwhile, if features are wanted."""
        return watched(self._encoder if features else None)

    def _form(self, activation: nn.Module, raw: Tensor) -> nn.Module:
        """How an activation is computed for such raw outputs: here as it is written."""
        return activation

    def close(self) -> None:
        """Give the device's memory back."""
        del self._network, self._encoder, self._normalize
        if self._device.type == "cuda":
            gc.collect()  # a compiled network refers to itself
            forget_workspaces()
            torch.cuda.empty_cache()


class CompiledEngine(PyTorchEngine):
    """The same, its network compiled by `torch.compile` once per size: takes a C++ compiler."""

    def __init__(self, model: LoadedModel, device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        # For good: a hook that comes later is not compiled.
        self._coarsest: list[Tensor] = []
        if self._encoder is not None:
            self._encoder.register_forward_hook(self._keep)
        self._network.compile(dynamic=False)

    def _keep(self, encoder: nn.Module, given: Any, found: Any) -> None:
        self._coarsest.append(found[-1] if isinstance(found, list | tuple) else found)

    def _watched(self, features: bool) -> AbstractContextManager[list[Tensor]]:
        self._coarsest.clear()
        return nullcontext(self._coarsest)
