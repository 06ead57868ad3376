"""The losses of single tasks by name. Pixels without a label count for none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.prediction import UNLABELLED
from emu_perception.tasks import Task
from emu_perception.training import losses

TaskLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(raw prediction `(B, channels, H, W)`, target, valid bool `(B, H, W)`) to a scalar, 0 where
nothing is valid. The targets are those of `Batch`, that of depth in the network's unit."""

_LOSSES: dict[str, dict[str, TaskLoss]] = {}
"""By task, then by name; the first of a task is its default."""


def register_loss(task: str, name: str) -> Callable[[TaskLoss], TaskLoss]:
    """Decorator: make a loss known to `find_loss`."""

    def register(loss: TaskLoss) -> TaskLoss:
        _LOSSES.setdefault(task, {})[name] = loss
        return loss

    return register


def find_loss(task: str, name: str | None = None) -> TaskLoss:
    """A task's loss by name, its default for None.

    Raises:
        ValueError: the task has no loss, or none of this name.
    """
    known = _LOSSES.get(task)
    if known is None:
        raise ValueError(f"task '{task}' has no loss: add one with register_loss")
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise ValueError(f"unknown loss '{name}' of '{task}'; known: {', '.join(known)}")
    return known[name]


def choose_losses(names: Mapping[Task, str], tasks: Sequence[str]) -> dict[str, TaskLoss]:
    """The losses of tasks by task: those named, else their defaults; see `find_loss`."""
    named: dict[str, str] = dict(names)  # type: ignore[arg-type]
    return {task: find_loss(task, named.get(task)) for task in tasks}


@register_loss("semantic", "cross_entropy")
@register_loss("edges", "cross_entropy")
@register_loss("human_parts", "cross_entropy")
@register_loss("saliency", "cross_entropy")
def cross_entropy(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels."""
    return losses.cross_entropy(prediction, target.masked_fill(~valid, UNLABELLED))


@register_loss("edges", "balanced_cross_entropy")
def balanced_cross_entropy(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy with weights 0.95 for edges, which are few, and 0.05 for the rest.

    DenseMTL's authors' code for NYUv2; the mean is the weighted one, as `F.cross_entropy` takes it.
    """
    weight = prediction.new_tensor([0.05, 0.95], dtype=torch.float32)
    return losses.cross_entropy(prediction, target.masked_fill(~valid, UNLABELLED), weight)


@register_loss("edges", "weighted_cross_entropy")
def weighted_cross_entropy(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy with weights 0.95 for edges and 0.05 for the rest, averaged over the labelled
    pixels (Vandenhende et al., TPAMI 2021, on PASCAL-Context)."""
    return _two_sided(prediction, target, valid, prediction.new_tensor(0.95, dtype=torch.float32))


@register_loss("saliency", "balanced_cross_entropy")
def balanced_by_share(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy in which salient pixels weigh as much as the batch's fraction of others, and
    the other way round (HED, Xie and Tu, ICCV 2015, Eq. 2), averaged over the labelled pixels."""
    others = ((target == 0) & valid).sum() / valid.sum().clamp_min(1)
    return _two_sided(prediction, target, valid, others)


def _two_sided(prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy of two classes, the second's times the weight, the first's times the
    rest."""
    loss = F.cross_entropy(prediction.float(), target.masked_fill(~valid, 0), reduction="none")
    weights = torch.where(target == 1, weight, 1 - weight) * valid
    return (loss * weights).sum() / valid.sum().clamp_min(1)


@register_loss("depth", "berhu")
def berhu(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Reverse Huber loss, averaged over all pixels of the images that have depth.

    |r| below c and (r^2 + c^2) / 2c above it, c being 0.2 of the batch's largest |r| (Laina et al.,
    3DV 2016, Eq. 1 and 2). In an image with depth, pixels without count as zero, as DenseMTL's
    authors do; an image without any, such as one of the domain to adapt to, is left out. Sparse
    depth wants `berhu_valid`.
    """
    loss = _berhu(prediction, target, valid)
    return loss.sum() / valid.flatten(1).any(1).sum().clamp_min(1) / loss[0].numel()


@register_loss("depth", "berhu_valid")
def berhu_valid(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`berhu` averaged over the valid pixels."""
    return _berhu(prediction, target, valid).sum() / valid.sum().clamp_min(1)


def _berhu(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    residual = (prediction[:, 0].float() - target).abs().masked_fill(~valid, 0.0)
    threshold = 0.2 * residual.detach().amax().clamp_min(1e-12)
    return torch.where(
        residual <= threshold, residual, (residual**2 + threshold**2) / (2 * threshold)
    )


@register_loss("depth", "l1")
def l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error over the valid pixels, in the network's unit of depth."""
    error = (prediction[:, 0].float() - target).abs().masked_fill(~valid, 0.0)
    return error.sum() / valid.sum().clamp_min(1)


@register_loss("normals", "cosine")
def cosine(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean of 1 - cos of the angle between predicted and true normals, over the valid pixels."""
    similarity = F.cosine_similarity(prediction.float(), target, dim=1)
    return (1 - similarity).masked_fill(~valid, 0.0).sum() / valid.sum().clamp_min(1)


@register_loss("normals", "l1")
def normals_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of the components of unit normals, over the valid pixels."""
    error = (F.normalize(prediction.float(), dim=1) - target).abs().mean(1)
    return error.masked_fill(~valid, 0.0).sum() / valid.sum().clamp_min(1)
