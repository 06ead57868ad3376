"""How the losses of several tasks become one: by name, for every module that trains tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

_WEIGHTINGS: dict[str, Callable[..., Weighting]] = {}


class Weighting(nn.Module, ABC):
    """Combines the losses of tasks. Parameters that it has are trained with the network's.

    Args:
        tasks: whose losses it is given.
        weights: factor of each task's loss before anything else; 1 for those not named.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.weights = {task: weights.get(task, 1.0) for task in tasks}

    def stack(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses `(K,)` in the order of `tasks`, each times its given factor."""
        return torch.stack([self.weights[task] * losses[task] for task in self.tasks])

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
        """The scalar to minimise.

        Args:
            losses: by task, scalars; 0 for one without labels in this batch.
            shared: the parameters that all tasks share, for what looks at gradients.
        """

    def on_epoch_end(self) -> None:
        """Called after each training epoch, for weights that follow the losses' course."""


def register_weighting(name: str) -> Callable[[type[Weighting]], type[Weighting]]:
    """Class decorator: make a weighting known to `build_weighting`."""

    def register(kind: type[Weighting]) -> type[Weighting]:
        _WEIGHTINGS[name] = kind
        return kind

    return register


def build_weighting(
    name: str, tasks: Sequence[str], weights: Mapping[str, float], **arguments: Any
) -> Weighting:
    """A weighting by name; ValueError for an unknown one, or arguments that do not suit it."""
    if name not in _WEIGHTINGS:
        raise ValueError(f"unknown weighting '{name}'; known: {', '.join(sorted(_WEIGHTINGS))}")
    try:
        return _WEIGHTINGS[name](tasks, weights, **arguments)
    except TypeError as error:
        raise ValueError(f"weighting '{name}': {error}") from error


@register_weighting("fixed")
class Fixed(Weighting):
    """The sum with the given weights; with none given, all equal."""

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
        return self.stack(losses).sum()
