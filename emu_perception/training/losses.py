"""Losses on dense maps, in float32 whatever the precision of the network.

Those of ground truth ignore pixels without a label. Those of the teacher (EMUFormer, arXiv
2402.10580, Eq. 9 to 11) take all pixels, labelled or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.prediction import MIN_VARIANCE, UNLABELLED
from emu_perception.tasks import Kind


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    groups: Sequence[Sequence[int]] = (),
) -> Tensor:
    """Mean cross-entropy of `(B, C, H, W)` logits, int64 `(B, H, W)` labels; 0 if all are 255.

    A coarse label, which covers several classes, costs the negative logarithm of their summed
    probability.

    Args:
        weight: `(C,)`, weight of a pixel of each class; None: all 1. A coarse label has weight 1.
        groups: of `Dataset.label_groups`; the label C + k stands for the classes `groups[k]`.
    """
    classes = logits.shape[1]
    fine = labels.masked_fill(labels >= classes, UNLABELLED) if groups else labels
    summed = F.cross_entropy(logits.float(), fine, weight, ignore_index=UNLABELLED, reduction="sum")
    known = fine != UNLABELLED
    count = known.sum() if weight is None else (weight[fine * known] * known).sum()
    for number, group in enumerate(groups):
        pixels = labels == classes + number
        if pixels.any():
            scores = logits.permute(0, 2, 3, 1)[pixels].float()  # (N, C)
            part = torch.logsumexp(scores[:, list(group)], 1)
            summed = summed + (torch.logsumexp(scores, 1) - part).sum()
            count = count + pixels.sum()
    return summed / count.clamp_min(1 if weight is None else 1e-6)


def class_weights(given: Mapping[str, float], names: Sequence[str]) -> Tensor | None:
    """`(C,)` for `cross_entropy`, 1 for a class that is not given; None where none is.

    Raises:
        ValueError: one is given that is none of the names.
    """
    if not given:
        return None
    for name in given:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"loss.class_weights: there is no class '{name}'; known: {known}")
    return torch.tensor([given.get(name, 1.0) for name in names])


def gaussian_nll(
    mean: Tensor, variance: Tensor, target: Tensor, valid: Tensor, beta: float = 0.0
) -> Tensor:
    """Mean Gaussian negative log-likelihood over the valid pixels, constant ln(2 pi)/2 left out.

    The variance is clamped at `MIN_VARIANCE` (EMUFormer, Eq. 7; Nix and Weigend, 1994).

    With `beta` > 0 each pixel's loss is weighted by its variance to that power, taken as a
    constant, which keeps far, uncertain pixels from being given up (Seitzer et al., "On the
    Pitfalls of Heteroscedastic Uncertainty Estimation", ICLR 2022, Eq. 5).

    Args:
        mean, variance, target: `(B, H, W)`; metres and square metres.
        valid: bool `(B, H, W)`.
    """
    variance = variance.float().clamp_min(MIN_VARIANCE)
    loss = 0.5 * (torch.log(variance) + (mean.float() - target) ** 2 / variance)
    if beta:
        loss = loss * variance.detach() ** beta
    return _masked_mean(loss, valid)


def log_l1(mean: Tensor, target: Tensor, valid: Tensor, smallest: float = 1e-2) -> Tensor:
    """Mean |ln mean - ln target| over the valid pixels: a relative error, the same near and far.

    Args:
        mean, target: `(B, H, W)`, metres.
        smallest: means below it count as it, so that a dead ReLU keeps the loss finite.
    """
    ratio = torch.log(mean.clamp_min(smallest)) - torch.log(target.clamp_min(smallest))
    return _masked_mean(ratio.abs(), valid)


def scale_invariant_log(
    mean: Tensor, target: Tensor, valid: Tensor, weight: float = 0.85, smallest: float = 1e-2
) -> Tensor:
    """Scale-invariant logarithmic error (Eigen et al., NeurIPS 2014, Eq. 4, with its root).

    sqrt(mean(g^2) - weight mean(g)^2) with g = ln mean - ln target, per image, averaged over the
    images that have valid pixels.
    """
    g = torch.log(mean.clamp_min(smallest)) - torch.log(target.clamp_min(smallest))
    mask = valid.flatten(1).to(g.dtype)
    count = mask.sum(1).clamp_min(1)
    g = g.flatten(1) * mask
    first, second = g.sum(1) / count, (g**2).sum(1) / count
    per_image = torch.sqrt((second - weight * first**2).clamp_min(1e-8))
    return _masked_mean(per_image, valid.flatten(1).any(1))


def log_gradient(
    mean: Tensor, target: Tensor, valid: Tensor, steps: Sequence[int] = (1, 2, 4, 8)
) -> Tensor:
    """Mean |difference of ln mean - difference of ln target| between pixels that are near.

    It keeps depth edges sharp and surfaces smooth, whatever their scale (gradient matching: Li and
    Snavely, "MegaDepth", CVPR 2018, Eq. 4). Pairs of pixels that both have depth count, along rows
    and along columns, so that it also works within and across sparse points.

    Args:
        mean, target: `(B, H, W)`, metres.
        valid: bool `(B, H, W)`.
        steps: distances of the pairs in pixels.
    """
    error = torch.log(mean.float().clamp_min(1e-2)) - torch.log(target.clamp_min(1e-2))
    total, count = error.new_zeros(()), error.new_zeros(())
    for step in steps:
        for dim in (1, 2):
            length = error.shape[dim] - step
            if length < 1:
                continue
            first, second = error.narrow(dim, 0, length), error.narrow(dim, step, length)
            pair = valid.narrow(dim, 0, length) & valid.narrow(dim, step, length)
            total = total + ((first - second).abs() * pair).sum()
            count = count + pair.sum()
    return total / count.clamp_min(1)


def mean_squared_error(mean: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean squared error over the valid pixels of `(B, H, W)` maps; knows of no variance."""
    return _masked_mean((mean.float() - target) ** 2, valid)


def huber(mean: Tensor, target: Tensor, valid: Tensor, delta: float = 1.0) -> Tensor:
    """Mean Huber loss over the valid pixels: squared below `delta` metres, linear above it."""
    return _masked_mean(F.huber_loss(mean.float(), target, reduction="none", delta=delta), valid)


def kl_divergence(teacher: Tensor, logits: Tensor) -> Tensor:
    """KL divergence of the student's classes from the teacher's, mean over all pixels (Eq. 9).

    Args:
        teacher: `(B, C, H, W)` probabilities, such as the members' mean softmax.
        logits: `(B, C, H, W)` of the student.
    """
    student = torch.log_softmax(logits.float(), dim=1)
    divergence = torch.xlogy(teacher, teacher).sum(1) - (teacher * student).sum(1)
    return divergence.mean()


def cosine_distance(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Mean of 1 - cos of the angle between unit vectors `(B, 3, H, W)` over the valid pixels."""
    return _masked_mean(1 - (first * second).sum(1), valid)


def binary_divergence(target: Tensor, probability: Tensor, valid: Tensor) -> Tensor:
    """KL divergence of a probability from a target one, both 0-1, mean over the valid pixels.

    For labels, 0 or 1, it is the cross-entropy.
    """
    one, zero = (p.clamp(1e-6, 1 - 1e-6) for p in (probability, 1 - probability))
    entropy = torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target)
    cross = target * torch.log(one) + (1 - target) * torch.log(zero)
    return _masked_mean(entropy - cross, valid)


def activated_from_teacher(kind: Kind, predicted: Tensor, teacher: Tensor) -> Tensor:
    """Mean distance of an activated map from a teacher's, `targets.Targets.others`, over all
    pixels: KL divergence of classes, 1 - cos of directions."""
    if kind == "classes":
        return kl_divergence(teacher, predicted)
    everywhere = torch.ones_like(predicted[:, 0] if kind == "direction" else predicted).bool()
    distance = cosine_distance if kind == "direction" else binary_divergence
    return distance(teacher, predicted, everywhere)


def root_mean_squared_log_error(teacher: Tensor, student: Tensor) -> Tensor:
    """sqrt(mean((ln(1 + teacher) - ln(1 + student))^2)) over all pixels of the batch (Eq. 11).

    Args:
        teacher, student: uncertainties of one shape, not negative: variances of depth in square
            metres, or mutual information in nats.
    """
    squared = (torch.log1p(teacher.float()) - torch.log1p(student.float())) ** 2
    # The root has no gradient where student and teacher agree exactly.
    return torch.sqrt(squared.mean().clamp_min(1e-12))


def precision_weighted_log_error(
    mean: Tensor,
    teacher: Tensor,
    variance: Tensor | None,
    valid: Tensor,
    smallest: float = 1e-2,
    floor: float = 0.05,
) -> Tensor:
    """Weighted mean of (ln mean - ln teacher)^2 over the valid pixels.

    A teacher's prediction in place of labels is weighted by its certainty: the weight is the
    inverse of its relative variance, (teacher / sigma)^2, at most 1 / floor^2.

    Args:
        mean, teacher: `(B, H, W)`, metres.
        variance: `(B, H, W)` of the teacher, square metres; None: all pixels count alike.
        valid: bool `(B, H, W)`.
        smallest: depths below it count as it, so that a dead ReLU keeps the loss finite.
        floor: relative deviation below which being surer counts no more.
    """
    teacher = teacher.float().clamp_min(smallest)
    squared = (torch.log(mean.float().clamp_min(smallest)) - torch.log(teacher)) ** 2
    weight = valid.to(squared.dtype)
    if variance is not None:
        relative = variance.float().clamp_min(0) / teacher**2
        weight = weight / relative.clamp_min(floor**2)
    return (squared * weight).sum() / weight.sum().clamp_min(1e-12)


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum().clamp_min(1)
