"""How the losses of several tasks become one: by name, for every module that trains tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

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

    name: ClassVar[str]
    positive: ClassVar[bool] = False
    """True where losses below 0 cannot be weighted: it takes ratios or logarithms of them."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.weights = {task: weights.get(task, 1.0) for task in tasks}

    def forward(
        self,
        losses: Mapping[str, Tensor],
        shared: Sequence[nn.Parameter],
        labelled: Tensor | None = None,
    ) -> Tensor:
        """The scalar to minimise.

        Args:
            losses: by task, scalars.
            shared: the parameters that all tasks share, for what looks at gradients.
            labelled: bool `(K,)` in the order of `tasks`: which have labels in this batch. The loss
                of the others does not show their progress. None: all have.

        Raises:
            ValueError: a loss is below 0 and this weighting needs losses that are not.
        """
        values = torch.stack([self.weights[task] * losses[task] for task in self.tasks])
        if self.positive:
            for task, value in zip(self.tasks, values.tolist(), strict=True):
                if value < 0:
                    raise ValueError(negative_losses(self.name, f"that of {task} is {value:.3g}"))
        if labelled is None:
            labelled = torch.ones(len(self.tasks), dtype=torch.bool)
        return self.combine(values, shared, labelled.to(values.device))

    @abstractmethod
    def combine(self, values: Tensor, shared: Sequence[nn.Parameter], labelled: Tensor) -> Tensor:
        """`forward`, of the losses `(K,)` that are already times their given factors."""

    def factor(self, task: str) -> float | Tensor:
        """Constant weight of a further loss in the unit of a task's loss."""
        return self.weights[task]

    def on_epoch_end(self) -> None:
        """Called after each training epoch, for weights that follow the losses' course."""


def negative_losses(name: str, what: str) -> str:
    """Why a weighting refuses losses below 0, and what to do."""
    return (
        f"multitask.weighting '{name}' needs losses that are never below 0: {what}; take a loss of "
        "depth that is not (loss.depth: huber or mse), or the weighting fixed, pcgrad or mgda"
    )


def register_weighting(name: str) -> Callable[[type[Weighting]], type[Weighting]]:
    """Class decorator: make a weighting known to `build_weighting`."""

    def register(kind: type[Weighting]) -> type[Weighting]:
        kind.name = name
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

    def combine(self, values: Tensor, shared: Sequence[nn.Parameter], labelled: Tensor) -> Tensor:
        return values.sum()
