"""PyTorch, eager: the reference that every other engine must equal."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.segdepthformer import RawOutputs

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


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


class PyTorchEngine:
    """Runs a network's folded form eagerly.

    Args:
        network: a trained network; one with a `fold()` method is folded.
        device: where it runs.
        precision: `fp32`, `fp16` or `bf16`.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str) -> None:
        folded = network.fold() if hasattr(network, "fold") else network
        self.device = device
        self.dtype = PRECISIONS[precision]
        self._network = folded.to(
            device=device, dtype=self.dtype, memory_format=torch.channels_last
        ).eval()

    @torch.inference_mode()
    def run(self, image: Tensor) -> RawOutputs:
        """Normalised `(B, 3, H, W)` on the engine's device to raw maps at 1/4 of its size."""
        image = image.to(self.dtype, memory_format=torch.channels_last)
        return self._network(image)

    def close(self) -> None:
        """Give the device's memory back."""
        del self._network
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
