"""Inference-only wrapper for a frozen teacher."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.inference.engines.base import fold
from emu_perception.networks.ensembles import DeepEnsemble, stack_members
from emu_perception.networks.raw_outputs import RawOutputs

Forward = Callable[[Tensor], RawOutputs]

COMPILED_PIXELS = 1 << 15
"""Pixels of a batch from which compiling pays off. It depends on the shape alone, so that a resumed
run does the same."""


class FrozenNetwork:
    """A network's folded form in `eval()`, without gradients.

    On a CPU where OpenVINO is installed it is compiled once per shape of a batch, for as many
    threads as torch has then, and takes two fifths of the time. Sampled dropout, small batches and
    GPUs are PyTorch's. No module: it belongs to no checkpoint, no optimiser and no average of
    weights.

    Args:
        network: as trained; taken over.
    """

    def __init__(self, network: nn.Module) -> None:
        installed = importlib.util.find_spec("openvino") is not None
        self._compiles = installed and not getattr(network, "stochastic", False)
        folded = fold(network).requires_grad_(False).eval()
        self._network = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled: dict[tuple[int, ...], Forward] = {}

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._network.to(device)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> RawOutputs:
        """Outputs of the network for a normalised batch `(B, C, H, W)`, as of its `forward`."""
        shape = tuple(image.shape)
        large = shape[0] * shape[-2] * shape[-1] >= COMPILED_PIXELS
        if not (self._compiles and large and image.device.type == "cpu"):
            found: RawOutputs = self._network(image)
            return found
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(shape)
        return self._compiled[shape](image)

    def _compile(self, shape: tuple[int, ...]) -> Forward:
        from emu_perception.inference.engines.converted import compile_forward

        if not isinstance(self._network, DeepEnsemble):
            return compile_forward(self._network, shape)
        # One after the other: compiling all members at once takes as many times the memory.
        members = [compile_forward(member, shape) for member in self._network.members]
        return lambda image: stack_members([member(image) for member in members])
