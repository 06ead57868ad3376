"""Reference equations: the members' outputs to one prediction and its uncertainty.

A member is one network of a Deep Ensemble, one head pair of a Deep Sub-Ensemble or one dropout
sample; a single network, such as the student EMUFormer, is one member. All tensors lead with the
member axis M (EMUFormer, arXiv 2402.10580, sections 3.1 and 3.2). Engines, training targets and
exports compute the same in other ways; their tests compare them with these functions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.prediction import MIN_VARIANCE


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
    """Entropy of the mean minus mean of the members' entropies, nats; of a single member its
    prediction, else None."""


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


def temper(probabilities: Tensor, temperature: float, dim: int = 1) -> Tensor:
    """Divide log-probabilities by the temperature and normalise again; 1 changes nothing."""
    if temperature == 1:
        return probabilities
    return torch.softmax(torch.log(probabilities.clamp_min(1e-30)) / temperature, dim=dim)


def mean_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """`(M, B, C, H, W)` logits to the members' calibrated mean class probabilities `(B, C, H, W)`.

    Upsample the logits before, not the probabilities after. Members are pooled first and calibrated
    then (Rahaman and Thiery, NeurIPS 2021): the temperature is fitted to the mean.
    """
    if len(logits) == 1:
        return torch.softmax(logits[0].float() / temperature, dim=1)
    return temper(torch.softmax(logits.float(), dim=2).mean(0), temperature)


def semantic_maps(
    logits: Tensor, temperature: float = 1.0, predicted_epistemic: Tensor | None = None
) -> SemanticMaps:
    """Class, confidence, predictive entropy and mutual information of the members' softmaxes.

    The mutual information is that of the uncalibrated members, whose disagreement is no matter of
    calibration; it is at most the calibrated entropy.

    Args:
        logits, temperature: as `mean_softmax`.
        predicted_epistemic: `(B, H, W)` nats, of a single member with split uncertainty.
    """
    probabilities = mean_softmax(logits, temperature)
    confidence, labels = probabilities.max(1)
    total = entropy(probabilities)
    mutual = predicted_epistemic
    if len(logits) > 1:
        members = torch.softmax(logits.float(), dim=2)
        mutual = (entropy(members.mean(0)) - entropy(members, dim=2).mean(0)).clamp_min(0)
    if mutual is not None:
        mutual = torch.minimum(mutual, total)
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
