"""Validation metrics of single tasks, as sums that processes add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ValidationMetric:
    """A figure of one task over a validation set, by sums over its images."""

    name: str
    """Logged as `validation/NAME`."""
    shape: Callable[[int], tuple[int, ...]]
    """Shape of the sums, given the channels of the task's raw map."""
    count: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Sums of a batch, of (activated map as in `Outputs`, target, valid bool `(B, H, W)`)."""
    figure: Callable[[Tensor], Tensor | None]
    """From the sums of the set; None without a labelled pixel."""


_METRICS: dict[str, ValidationMetric] = {}


def register_validation(task: str, metric: ValidationMetric) -> None:
    """Set the validation metric of a task."""
    _METRICS[task] = metric


def find_validation(task: str) -> ValidationMetric:
    """The validation metric of a task; ValueError where none is registered."""
    if task not in _METRICS:
        raise ValueError(
            f"task '{task}' has no validation metric: add one with register_validation"
        )
    return _METRICS[task]


def _confusion(scores: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    classes = scores.shape[1]
    known = valid & (target < classes)  # not of the coarse labels
    index = target[known] * classes + scores.argmax(1)[known]
    return torch.bincount(index, minlength=classes**2).view(classes, classes)


def class_iou(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels `(C, C)` by true and predicted class to IoU `(C,)`, and where a class occurs."""
    hits = confusion.diagonal().float()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return hits / union, union > 0


def _mean_iou(confusion: Tensor) -> Tensor | None:
    iou, occurs = class_iou(confusion)
    return iou[occurs].mean() if occurs.any() else None


def mean_iou(name: str) -> ValidationMetric:
    """Mean IoU over the classes that occur in labels or predictions."""
    return ValidationMetric(name, lambda classes: (classes, classes), _confusion, _mean_iou)


def _hits(probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    there, found = target[valid] == 1, probability[valid] >= 0.5
    parts = (there & found, there & ~found, ~there & found)
    return torch.stack([part.sum() for part in parts])


def _f1(sums: Tensor) -> Tensor | None:
    hit, missed, wrong = sums
    return 2 * hit / (2 * hit + missed + wrong) if sums.any() else None


def f1(name: str) -> ValidationMetric:
    """F1 of the pixels of the second class at a probability of 0.5."""
    return ValidationMetric(name, lambda _: (3,), _hits, _f1)


def _squares(mean: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return torch.stack([((mean - target)[valid] ** 2).sum(), valid.sum()])


def _angles(directions: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    cosine = (directions * target).sum(1)[valid]
    degrees = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    return torch.stack([degrees.sum(), valid.sum()])


def _ratio(sums: Tensor) -> Tensor | None:
    return sums[0] / sums[1] if sums[1] else None


def _root(sums: Tensor) -> Tensor | None:
    return torch.sqrt(sums[0] / sums[1]) if sums[1] else None


register_validation("semantic", mean_iou("miou"))
register_validation("human_parts", mean_iou("human_parts_miou"))
register_validation("edges", f1("edge_f1"))
register_validation("saliency", f1("saliency_f1"))
register_validation("depth", ValidationMetric("rmse", lambda _: (2,), _squares, _root))
register_validation(
    "normals", ValidationMetric("mean_angular_error", lambda _: (2,), _angles, _ratio)
)
