"""Weightings of task losses that find their weights themselves.

Every method is a choice of weights: what PCGrad and MGDA make of the tasks' gradients is a linear
combination of them, so the inner products of the gradients are all that a method needs to see. A
task without labels in the batch moves no weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.distributed
import torch.nn as nn
from torch import Tensor

from emu_perception.training.weighting import Weighting, register_weighting


@register_weighting("uncertainty")
class Uncertainty(Weighting):
    """Learned log-variances s: the sum of ½ e^(−s) L + s.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, in
    the form that XTasC-Net trains with. With L below 0 it has no minimum.
    """

    positive = True

    def __init__(
        self, tasks: Sequence[str], weights: Mapping[str, float], start: float = 0.0
    ) -> None:
        super().__init__(tasks, weights)
        self.log_variance = nn.Parameter(torch.full((len(self.tasks),), float(start)))

    def combine(self, values: Tensor, shared: Sequence[nn.Parameter], labelled: Tensor) -> Tensor:
        s = torch.where(labelled, self.log_variance, self.log_variance.detach())
        return (0.5 * torch.exp(-s) * values + s * labelled).sum()

    def factor(self, task: str) -> float | Tensor:
        s = self.log_variance.detach()[self.tasks.index(task)]
        return self.weights[task] * 0.5 * torch.exp(-s)


@register_weighting("dwa")
class DynamicWeightAverage(Weighting):
    """More weight for tasks whose loss falls slowly: K softmax(r / T), r the ratio of the last two
    epochs' mean losses (Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019)."""

    positive = True

    def __init__(
        self, tasks: Sequence[str], weights: Mapping[str, float], temperature: float = 2.0
    ) -> None:
        super().__init__(tasks, weights)
        self.temperature = temperature
        self.sums: Tensor
        self.before: Tensor
        self.current: Tensor
        self.register_buffer("sums", torch.zeros(2, len(self.tasks)))
        self.register_buffer("before", torch.zeros(len(self.tasks)))
        self.register_buffer("current", torch.ones(len(self.tasks)))

    def combine(self, values: Tensor, shared: Sequence[nn.Parameter], labelled: Tensor) -> Tensor:
        self.sums += torch.stack([values.detach().float() * labelled, labelled.float()])
        return (self.current * values).sum()

    def factor(self, task: str) -> float | Tensor:
        return self.weights[task] * self.current[self.tasks.index(task)]

    def on_epoch_end(self) -> None:
        total, count = _sum_over_processes(self.sums)
        mean = total / count.clamp_min(1)
        known = (self.before > 0) & (count > 0)
        ratio = torch.where(known, mean / self.before.clamp_min(1e-12), 1.0)
        self.current = len(self.tasks) * torch.softmax(ratio / self.temperature, dim=0)
        self.before = torch.where(count > 0, mean, self.before)
        self.sums = torch.zeros_like(self.sums)


class GradientBased(Weighting):
    """Weights from the inner products of the tasks' gradients on the shared parameters.

    It costs one backward pass per task down to these parameters, in addition to that of the total.
    A task without a gradient there, as one whose weight is still 0, has no part in it.
    """

    def combine(self, values: Tensor, shared: Sequence[nn.Parameter], labelled: Tensor) -> Tensor:
        # All processes reduce vectors of all tasks, whichever their part of the batch has.
        own = [value if has else None for value, has in zip(values, labelled.tolist(), strict=True)]
        products = gram_matrix(own, shared)
        shares = torch.stack([values.detach().float() * labelled, labelled.float()])
        total, count = _sum_over_processes(shares)
        rows = (products.diagonal() > 0).nonzero()[:, 0]
        weights = torch.zeros_like(values.detach())
        if len(rows):
            means = (total / count.clamp_min(1))[rows]
            weights[rows] = self.weigh(rows, means, products[rows][:, rows]).to(weights.dtype)
        return (weights * values).sum()

    @abstractmethod
    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        """Weights `(k,)` of the losses that a batch has, constants of the step.

        Args:
            rows: `(k,)` which of the tasks they belong to.
            losses: `(k,)` their values.
            products: `(k, k)` inner products of their gradients.
        """


@register_weighting("gradnorm")
class GradNorm(GradientBased):
    """Learned weights that keep the tasks' gradients at the norms that their progress requires.

    Chen et al., "GradNorm", ICML 2018: a step on |w_i ‖∇L_i‖ − mean(w ‖∇L‖) r_i^α| per batch, r_i
    what is left of the task's first loss relative to the others', then the weights sum to K again.
    """

    positive = True

    def __init__(
        self,
        tasks: Sequence[str],
        weights: Mapping[str, float],
        alpha: float = 1.5,
        step: float = 0.025,
    ) -> None:
        super().__init__(tasks, weights)
        self.alpha, self.step = alpha, step
        self.first: Tensor
        self.current: Tensor
        self.register_buffer("first", torch.zeros(len(self.tasks)))
        self.register_buffer("current", torch.ones(len(self.tasks)))

    def factor(self, task: str) -> float | Tensor:
        return self.weights[task] * self.current[self.tasks.index(task)]

    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        self.first[rows] = torch.where(self.first[rows] > 0, self.first[rows], losses)
        left = losses / self.first[rows].clamp_min(1e-12)
        norms = products.diagonal().clamp_min(0).sqrt()
        scaled = self.current[rows] * norms
        target = scaled.mean() * (left / left.mean().clamp_min(1e-12)) ** self.alpha
        self.current[rows] -= self.step * torch.sign(scaled - target) * norms
        self.current.clamp_min_(1e-3)
        self.current *= len(self.tasks) / self.current.sum()
        return self.current[rows]


@register_weighting("pcgrad")
class PCGrad(GradientBased):
    """Each task's gradient loses what conflicts with another's (Yu et al., NeurIPS 2020).

    The others are gone through in a random order, drawn from torch's generator: that of the first
    process, since all must weigh alike.
    """

    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        products = products.double().cpu()
        count = len(products)
        total = torch.zeros(count, dtype=torch.float64)
        orders = torch.stack([torch.randperm(count) for _ in range(count)]).to(losses.device)
        orders = _of_first_process(orders)
        for task in range(count):
            # The projected gradient, as coefficients of the tasks' gradients.
            own = torch.zeros_like(total)
            own[task] = 1
            for other in orders[task].tolist():
                overlap = own @ products[:, other]
                if other != task and overlap < 0:
                    own[other] -= overlap / products[other, other]
            total += own
        return total.to(losses.device)


@register_weighting("mgda")
class MGDA(GradientBased):
    """The convex combination of the gradients that is shortest: a direction good for all tasks.

    Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, Alg. 2:
    Frank-Wolfe, whose line search is exact; with two tasks its first step is the closed form.
    """

    steps = 50

    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        products = products.double().cpu()
        corners = torch.eye(len(products), dtype=torch.float64)
        weights = corners[products.diagonal().argmin()]
        for _ in range(self.steps if len(products) > 2 else 1):
            corner = corners[(products @ weights).argmin()]
            difference = corner - weights
            length = difference @ products @ difference
            if length <= 0:
                break
            share = (-(difference @ products @ weights) / length).clamp(0, 1)
            weights = weights + share * difference
        return weights.to(losses.device)


def gram_matrix(losses: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    """Inner products `(K, K)` of the gradients of K losses on some parameters; keeps their graph.

    Args:
        losses: scalars; None for one that this process's part of the batch does not have.
        parameters: of which those that are trained count.

    Raises:
        ValueError: none of the parameters is trained.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("weighting by gradients needs trained parameters that the tasks share")
    vectors = []
    for loss in losses:
        parts: Sequence[Tensor | None] = [None] * len(trained)
        if loss is not None:
            scaled = loss * _SCALE
            parts = torch.autograd.grad(scaled, trained, retain_graph=True, allow_unused=True)
        flat = [
            (torch.zeros_like(parameter) if part is None else part).detach().float().flatten()
            for part, parameter in zip(parts, trained, strict=True)
        ]
        vectors.append(torch.cat(flat))
    # Each process sees its part of the batch; the gradient that counts is their mean.
    matrix = _sum_over_processes(torch.stack(vectors) / _SCALE) / _processes()
    with torch.autocast(matrix.device.type, enabled=False):  # squares overflow half precision
        return matrix @ matrix.T


_SCALE = 2.0**12
"""Scale of losses, whose gradients would vanish in half precision."""


def _processes() -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size()


def _of_first_process(values: Tensor) -> Tensor:
    if _processes() > 1:
        torch.distributed.broadcast(values, src=0)
    return values


def _sum_over_processes(values: Tensor) -> Tensor:
    if _processes() == 1:
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values
