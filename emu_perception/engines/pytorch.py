"""PyTorch, eager: the reference that every other engine must equal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from emu_perception.engines.activation import Normalization, activations, prepare
from emu_perception.engines.base import PRECISIONS, fold
from emu_perception.model_file import LoadedModel


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
    ) -> dict[str, Tensor]:
        """See `Engine.run`."""
        x = self._normalize(prepare(image, network_size, self._device))
        raw = self._network(x.to(self._dtype, memory_format=torch.channels_last))
        outputs = raw.by_task()
        maps: dict[str, Tensor] = {}
        for task, activation in activations(self._spec, wanted, output_size).items():
            maps.update(zip(activation.wanted, activation(outputs[task]), strict=True))
        return maps

    def close(self) -> None:
        """Give the device's memory back."""
        del self._network, self._normalize
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class CompiledEngine(PyTorchEngine):
    """The same, its network compiled by `torch.compile` once per size: takes a C++ compiler."""

    def __init__(self, model: LoadedModel, device: torch.device, precision: str) -> None:
        super().__init__(model, device, precision)
        self._network.compile(dynamic=False)
