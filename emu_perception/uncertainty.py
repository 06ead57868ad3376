"""From what the members of a model say to one prediction and its uncertainty.

A member is one network of a Deep Ensemble, one head pair of a Deep Sub-Ensemble or one dropout
sample; a single network, such as the student EMUFormer, is one member. All tensors lead with the
member axis M, so every method at inference goes through the same functions (EMUFormer,
arXiv 2402.10580, sections 3.1 and 3.2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_VARIANCE = 1e-6
"""Square metres; the Gaussian likelihood and its inverse stay finite from here on."""


class SemanticMaps(NamedTuple):
    """Class predictions of a batch, all `(B, H, W)` but the probabilities."""

    probabilities: Tensor
    """`(B, C, H, W)`: the members' mean softmax."""
    labels: Tensor
    """int64: the most probable class."""
    confidence: Tensor
    """Its probability."""
    entropy: Tensor
    """Predictive entropy of the mean softmax, nats in [0, ln C]."""
    mutual_information: Tensor | None
    """Entropy of the mean minus mean of the members' entropies; None for a single member."""


class DepthMaps(NamedTuple):
    """Depth predictions of a batch, all `(B, H, W)`."""

    mean: Tensor
    """Metres (or canonical units, for a network with a canonical focal length)."""
    variance: Tensor
    """Predictive variance, the square of that unit (Eq. 10)."""
    epistemic_variance: Tensor | None
    """Population variance of the members' means, or a single member's prediction of it, else
    None."""


def entropy(probabilities: Tensor, dim: int = 1) -> Tensor:
    """Shannon entropy in nats along `dim`; a probability of 0 contributes 0."""
    # Not torch.special.entr, which exporters do not know.
    return -(probabilities * torch.log(probabilities.clamp_min(1e-30))).sum(dim)


def mean_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """`(M, B, C, H, W)` logits to the members' mean class probabilities `(B, C, H, W)`.

    Upsample the logits before, not the probabilities after. The temperature divides the logits; 1
    leaves them uncalibrated.
    """
    return torch.softmax(logits.float() / temperature, dim=2).mean(0)


def semantic_maps(logits: Tensor, temperature: float = 1.0) -> SemanticMaps:
    """Class, confidence, predictive entropy and mutual information of the members' softmaxes.

    Args: as `mean_softmax`.
    """
    probabilities = mean_softmax(logits, temperature)
    confidence, labels = probabilities.max(1)
    total = entropy(probabilities)
    mutual = None
    if len(logits) > 1:
        members = torch.softmax(logits.float() / temperature, dim=2)
        mutual = (total - entropy(members, dim=2).mean(0)).clamp_min(0)
    return SemanticMaps(probabilities, labels, confidence, total, mutual)


def activate_depth(raw: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Raw depth channels to mean and variance.

    Args:
        raw: two channels along `dim`; the mean's ReLU and the variance's softplus follow here. Of
            a network that predicts no variance the mean alone.

    Returns:
        The mean, at least 0, and the variance, at least `MIN_VARIANCE`, or 0 where none is
        predicted; without `dim`, as float32.
    """
    if raw.shape[dim] == 1:
        mean = F.relu(raw.float().squeeze(dim))
        return mean, torch.zeros_like(mean)
    mean, variance = raw.float().unbind(dim)
    return F.relu(mean), F.softplus(variance).clamp_min(MIN_VARIANCE)


def depth_maps(
    means: Tensor,
    variances: Tensor,
    variance_scale: float = 1.0,
    predicted_epistemic: Tensor | None = None,
) -> DepthMaps:
    """Moments of the members' Gaussian mixture (Eq. 10).

    The predictive variance is mean(s_m^2) + mean(mu_m^2) - mean(mu_m)^2, the latter two taken
    together as the population variance of the means.

    Args:
        means, variances: `(M, B, H, W)`. Members that predict no variance have 0: theirs is then
            that of their means.
        variance_scale: calibration factor on the predictive variance; 1 leaves it as it is.
        predicted_epistemic: `(B, H, W)`, of a single member with split uncertainty.
    """
    mean = means.mean(0)
    aleatoric = variances.mean(0)
    epistemic = predicted_epistemic if len(means) == 1 else means.var(0, correction=0)
    if epistemic is None:
        return DepthMaps(mean, aleatoric * variance_scale, None)
    return DepthMaps(mean, (aleatoric + epistemic) * variance_scale, epistemic * variance_scale)
