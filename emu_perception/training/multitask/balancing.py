"""Weightings of task losses that find their weights themselves.

Every method is a choice of weights: what PCGrad and MGDA make of the tasks' gradients is a linear
combination of them, so the inner products of the gradients are all that a method needs to see. A
loss of exactly 0, that of a task without labels in the batch, has no part in any method.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.distributed
import torch.nn as nn
from torch import Tensor

from emu_perception.training.multitask.weighting import Weighting, register_weighting


@register_weighting("uncertainty")
class Uncertainty(Weighting):
    """Learnt log-variances s: the sum of ½ e^(−s) L + s.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, in
    the form that XTasC-Net trains with.
    """

    def __init__(
        self, tasks: Sequence[str], weights: Mapping[str, float], start: float = 0.0
    ) -> None:
        super().__init__(tasks, weights)
        self.log_variance = nn.Parameter(torch.full((len(self.tasks),), float(start)))

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
        values = self.stack(losses)
        terms = 0.5 * torch.exp(-self.log_variance) * values + self.log_variance
        return terms[values.detach() != 0].sum()


class Adaptive(Weighting):
    """A weighting whose weights are constants of a step."""

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
        values = self.stack(losses)
        return (self.factors(values, shared) * values).sum()

    @abstractmethod
    def factors(self, values: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
        """Constant weights `(K,)` of the losses `(K,)`."""


@register_weighting("dwa")
class DynamicWeightAverage(Adaptive):
    """More weight for tasks whose loss falls slowly: K softmax(r / T), r the ratio of the last two
    epochs' mean losses (Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019)."""

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

    def factors(self, values: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
        found = values.detach().float()
        self.sums += torch.stack([found, (found != 0).float()])
        return self.current

    def on_epoch_end(self) -> None:
        total, count = _average_over_processes(self.sums)
        mean = total / count.clamp_min(1e-12)
        known = (self.before > 0) & (count > 0)
        ratio = torch.where(known, mean / self.before.clamp_min(1e-12), 1.0)
        self.current = len(self.tasks) * torch.softmax(ratio / self.temperature, dim=0)
        self.before = torch.where(count > 0, mean, self.before)
        self.sums = torch.zeros_like(self.sums)


class GradientBased(Adaptive):
    """Weights from the inner products of the tasks' gradients on the shared parameters.

    It costs one backward pass per task down to these parameters, besides that of the total.
    """

    def factors(self, values: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
        found = torch.zeros_like(values.detach())
        rows = values.detach().nonzero()[:, 0]
        if len(rows):
            products = gram_matrix(list(values[rows]), shared)
            found[rows] = self.weigh(rows, values.detach()[rows], products).to(found.dtype)
        return found

    @abstractmethod
    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        """Weights `(k,)` of the losses that a batch has.

        Args:
            rows: `(k,)` which of the tasks they belong to.
            losses: `(k,)` their values.
            products: `(k, k)` inner products of their gradients.
        """


@register_weighting("gradnorm")
class GradNorm(GradientBased):
    """Learnt weights that keep the tasks' gradients at the norms their progress asks for.

    Chen et al., "GradNorm", ICML 2018: a step on |w_i ‖∇L_i‖ − mean(w ‖∇L‖) r_i^α| per batch, r_i
    what is left of the task's first loss relative to the others', then the weights sum to K again.
    """

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

    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        losses = _average_over_processes(losses.float())
        self.first[rows] = torch.where(self.first[rows] > 0, self.first[rows], losses)
        left = losses / self.first[rows]
        norms = products.diagonal().clamp_min(0).sqrt()
        scaled = self.current[rows] * norms
        target = scaled.mean() * (left / left.mean()) ** self.alpha
        self.current[rows] -= self.step * torch.sign(scaled - target) * norms
        self.current.clamp_min_(1e-3)
        self.current *= len(self.tasks) / self.current.sum()
        return self.current[rows]


@register_weighting("pcgrad")
class PCGrad(GradientBased):
    """Each task's gradient loses what conflicts with another's (Yu et al., NeurIPS 2020).

    The others are gone through in a random order, drawn from torch's generator.
    """

    def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
        products = products.double().cpu()
        count = len(products)
        total = torch.zeros(count, dtype=torch.float64)
        for task in range(count):
            # The projected gradient, as coefficients of the tasks' gradients.
            own = torch.zeros_like(total)
            own[task] = 1
            for other in torch.randperm(count).tolist():
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


def gram_matrix(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
    """Inner products `(K, K)` of the gradients of K losses on some parameters; keeps their graph.

    Raises:
        ValueError: none of the parameters is trained.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("weighting by gradients needs trained parameters that the tasks share")
    vectors = []
    for loss in losses:
        parts = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        flat = [
            (torch.zeros_like(parameter) if part is None else part).detach().float().flatten()
            for part, parameter in zip(parts, trained, strict=True)
        ]
        vectors.append(torch.cat(flat))
    # Each process sees its share of the batch; the gradient that counts is their mean.
    matrix = _average_over_processes(torch.stack(vectors))
    return matrix @ matrix.T


def _average_over_processes(values: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values / torch.distributed.get_world_size()
