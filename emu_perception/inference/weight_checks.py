"""Checks of a model file's weights, and of the network that is built for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FACTORIES = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.tensor}
)


class WeightLimit(TorchFunctionMode):
    """Stops the construction of a network that creates more numbers than its file can fill.

    Args:
        stored: numbers in the file. timm builds an encoder's classifier too and drops it, so a
            network may create several times as many.
    """

    def __init__(self, stored: int) -> None:
        super().__init__()
        self._stored = stored
        self._left = 4 * stored + 50_000_000

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _FACTORIES:
            self._left -= found.numel()
            if self._left < 0:
                raise ValueError(
                    f"the description is of a much larger network than the {self._stored} "
                    "numbers in the file"
                )
        return found


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and numbers, in the order of the names; hexadecimal."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        found.update(values.view(torch.uint8).numpy())
    return found.hexdigest()


def check_weights(weights: Mapping[str, Tensor], expected: str | None) -> None:
    """Refuse weights that were changed or that spoil every output.

    Args:
        weights: by name.
        expected: their digest; None for files of older versions.

    Raises:
        ValueError: another digest, or numbers that are not finite.
    """
    if expected is not None and digest(weights) != expected:
        raise ValueError("the weights are not those that were saved: their digest differs")
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"the weights '{name}' hold numbers that are not finite")
