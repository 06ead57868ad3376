"""Losses between the tasks of images that lack the labels of some of them.

MTPSL and the methods it is compared with: Li, Liu, Bilen, "Learning Multiple Dense Prediction Tasks
from Partially Annotated Data" (CVPR 2022, arXiv 2111.14893), Sec. 3 and Table 1. Each method is a
module that looks at one pair of tasks: the prediction of the source, which some images have no
label for, and the label of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any, Literal, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.depth_unit import DEPTH_UNITS, DepthUnit
from emu_perception.networks.mtpsl import MappingNetwork
from emu_perception.networks.task_transfer import TaskTransferNetwork
from emu_perception.tasks import TASKS

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Factors = Callable[[str], float | Tensor]
"""Weight of a loss in a task's unit; see `Weighting.factor`."""


class Pair(NamedTuple):
    """The images of a batch that have a label of the target and, most often, none of the source."""

    source: str
    target: str
    predictions: dict[str, Tensor]
    """`(b, channels, H, W)`, raw, at the size of the image, of both tasks."""
    label: Tensor
    """Label of the target, as in `Batch`, depth in the network's unit."""
    valid: Tensor
    """bool `(b, H, W)`."""
    features: Tensor
    """`(b, E, h, w)`, the encoder's last."""


def pairs_of_batch(has: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """Which images count for which (source, target).

    A source is a task that the image has no label for, a target one that it has; an image with all
    labels counts for all pairs.

    Args:
        has: bool `(B,)` by task.

    Returns:
        bool `(B,)` by pair, pairs without an image left out.
    """
    complete = torch.stack(list(has.values())).all(0)
    found = {}
    for source, target in permutations(has, 2):
        chosen = has[target] & (~has[source] | complete)
        if chosen.any():
            found[source, target] = chosen
    return found


DepthReading = Callable[[Tensor], Tensor]
"""Depth in the network's unit to what the mapping network reads, before it is normalised."""


def inverse_depth(unit: DepthUnit, nearest: float) -> DepthReading:
    """Reads inverse metres. The sky, whose depth has no label, is near 0 in it; in metres it would
    decide the maximum that an image's depth is divided by.

    Args:
        unit: the network's.
        nearest: metres; what is nearer is read as this near.
    """
    return lambda depth: 1 / unit.decode(depth).clamp_min(nearest)


def _as_it_is(depth: Tensor) -> Tensor:
    return depth


def prediction_as_input(
    prediction: Tensor, task: str, read_depth: DepthReading = _as_it_is
) -> Tensor:
    """A raw prediction `(b, C, H, W)` as the mapping network reads it (the paper's supplement).

    Scores pass a hard Gumbel softmax, so that they look like labels and still have a gradient;
    depth is divided by its maximum in the image; unit normals become (n + 1) / 2.
    """
    prediction = prediction.float()
    if TASKS[task].scores:
        return F.gumbel_softmax(prediction, tau=1.0, hard=True, dim=1)
    if task == "depth":
        return _by_maximum(read_depth(prediction[:, :1]))
    return (F.normalize(prediction, dim=1) + 1) / 2


def label_as_input(
    label: Tensor, valid: Tensor, task: str, channels: int, read_depth: DepthReading = _as_it_is
) -> Tensor:
    """A label of `Batch` as the mapping network reads it, `(b, channels, H, W)`.

    Pixels without one are 0, those of normals 0.5: the normal (0, 0, 0), as in the authors' code.
    """
    if TASKS[task].scores:
        one_hot = F.one_hot(label.masked_fill(~valid, 0), channels).movedim(-1, 1)
        return one_hot.float() * valid[:, None]
    if task == "depth":
        return _by_maximum(torch.where(valid, read_depth(label), 0.0)[:, None])
    return (label * valid[:, None] + 1) / 2


def _by_maximum(depth: Tensor) -> Tensor:
    return depth / depth.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean over places of 1 − cos of the angle between two `(b, C, h, w)` maps."""
    return 1 - F.cosine_similarity(first, second, dim=1).mean()


class JointMapping(nn.Module):
    """Prediction and label, mapped to the space that their pair of tasks shares, are to agree.

    Eq. 3 to 5: their cosine distance, and, so that the mapping cannot become trivial, the distance
    of both to the image's features, which get no gradient from it.

    Args:
        channels: of the tasks' maps.
        features: channels of the encoder's last features.
        widths: of the mapping network's stages but the last, which has as many as the features.
        consistency, regularization: weights of the two; 0 leaves one out (Table 6).
        depth_input: what the mapping network reads of depth, divided by its maximum in the image:
            `network`, depth in the network's unit (the authors': metres of rooms, inverse depth of
            streets), or `inverse`, inverse metres, for a network in other units and images with a
            sky.
        image_by_image: the mapping network's batch norms see one image at a time, as in the
            authors' code, not all images of a pair together.
        unit: the network's unit of depth.
        nearest: metres, of `inverse_depth`.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        features: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        consistency: float = 1.0,
        regularization: float = 0.5,
        depth_input: Literal["network", "inverse"] = "network",
        image_by_image: bool = True,
        *,
        unit: DepthUnit = DEPTH_UNITS["metres"],
        nearest: float = 1e-3,
    ) -> None:
        super().__init__()
        if depth_input not in ("network", "inverse"):
            raise ValueError(f"depth_input must be network or inverse, got '{depth_input}'")
        self.image_by_image = image_by_image
        self.read_depth = inverse_depth(unit, nearest) if depth_input == "inverse" else _as_it_is
        self.channels = dict(channels)
        self.consistency, self.regularization = consistency, regularization
        self.mapping = MappingNetwork(channels, (*widths, features))

    def mapped(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """The source's prediction and the target's label in the pair's space."""
        between = (pair.source, pair.target)
        prediction = prediction_as_input(
            pair.predictions[pair.source], pair.source, self.read_depth
        )
        channels = self.channels[pair.target]
        label = label_as_input(pair.label, pair.valid, pair.target, channels, self.read_depth)
        if self.image_by_image and self.training:
            return self.mapping.image_by_image(prediction, label, between)
        return (
            self.mapping(prediction, pair.source, between),
            self.mapping(label, pair.target, between),
        )

    def agreement(self, source: Tensor, target: Tensor) -> Tensor:
        """Distance between both in the pair's space."""
        return cosine_distance(source, target)

    def forward(self, pair: Pair, losses: Mapping[str, Loss], factors: Factors) -> Tensor:
        """The pair's loss, a distance without a unit: no factor of a task weighs it."""
        source, target = self.mapped(pair)
        total = source.new_zeros(())
        if self.consistency:
            total = total + self.consistency * self.agreement(source, target)
        if self.regularization:
            size = (source.shape[-2], source.shape[-1])
            # Mapped maps are none of them negative, as all features of the authors' networks are.
            features = F.adaptive_avg_pool2d(F.relu(pair.features.detach().float()), size)
            distance = cosine_distance(source, features) + cosine_distance(target, features)
            total = total + self.regularization * distance
        return total

    def film_parameters(self) -> list[nn.Parameter]:
        """Parameters that have their own optimiser in the paper."""
        return list(self.mapping.film_parameters())


class Contrastive(JointMapping):
    """Agreement in the pair's space by contrast: a place's two maps are to be nearer to each other
    than to those of other places (InfoNCE, van den Oord et al., arXiv 1807.03748)."""

    temperature = 0.1
    places = 256
    """Drawn per step: the table of similarities grows with their square."""

    def agreement(self, source: Tensor, target: Tensor) -> Tensor:
        a, b = (F.normalize(x.movedim(1, -1).flatten(0, 2), dim=1) for x in (source, target))
        chosen = torch.randperm(len(a), device=a.device)[: self.places]
        scores = a[chosen] @ b[chosen].T / self.temperature
        truth = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient has the opposite sign (Ganin and Lempitsky, ICML 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


class Discriminator(JointMapping):
    """Agreement in the pair's space by deception: a discriminator learns to tell mapped predictions
    from mapped labels, the mapping and the network learn to deceive it."""

    def __init__(self, channels: Mapping[str, int], features: int, **arguments: Any) -> None:
        super().__init__(channels, features, **arguments)
        hidden = max(features // 4, 8)
        self.judge = nn.Sequential(
            nn.Conv2d(features, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1)
        )

    def agreement(self, source: Tensor, target: Tensor) -> Tensor:
        said = [self.judge(_Reversed.apply(x)) for x in (source, target)]
        return (
            F.binary_cross_entropy_with_logits(said[0], torch.zeros_like(said[0]))
            + F.binary_cross_entropy_with_logits(said[1], torch.ones_like(said[1]))
        ) / 2


class DirectMap(nn.Module):
    """The source's prediction, mapped to the target task, is to match the target's label.

    The cross-task loss of Zamir et al., "Robust Learning Through Cross-Task Consistency", CVPR
    2020, with mapping networks that learn along.
    """

    def __init__(
        self, channels: Mapping[str, int], features: int, widths: Sequence[int] = (64, 128, 256)
    ) -> None:
        super().__init__()
        self.maps = nn.ModuleDict(
            {
                f"{source}_to_{target}": TaskTransferNetwork(
                    channels[source], channels[target], widths, scores=TASKS[source].scores
                )
                for source, target in permutations(channels, 2)
            }
        )

    def forward(self, pair: Pair, losses: Mapping[str, Loss], factors: Factors) -> Tensor:
        """The pair's loss, by the factor of the task in whose unit it is."""
        mapped = self.maps[f"{pair.source}_to_{pair.target}"](_mean(pair, pair.source))
        return factors(pair.target) * losses[pair.target](mapped, pair.label, pair.valid)

    def start_depth_at(self, value: float) -> None:
        """Start all maps to depth at a value in the network's unit."""
        for name, network in self.maps.items():
            if name.endswith("_to_depth"):
                network.start_at(value)  # type: ignore[operator]


class PerceptualMap(DirectMap):
    """Seen through the map to the source task, the target's prediction is to look like its label.

    The perceptual loss of Zamir et al. (CVPR 2020, Eq. 3). The map learns to predict what the
    network predicts of the source from the target's label, and where a source has no label this is
    also what its prediction is compared with.
    """

    def forward(self, pair: Pair, losses: Mapping[str, Loss], factors: Factors) -> Tensor:
        network = self.maps[f"{pair.target}_to_{pair.source}"]
        prediction, own = _mean(pair, pair.target), _mean(pair, pair.source)
        seen = network(prediction)
        truth = network(_label_like(pair, prediction))
        return factors(pair.source) * (F.l1_loss(seen, truth) + F.l1_loss(own, truth))


def _mean(pair: Pair, task: str) -> Tensor:
    """A task's raw prediction; of depth the mean alone."""
    prediction = pair.predictions[task].float()
    return prediction[:, :1] if task == "depth" else prediction


def _label_like(pair: Pair, prediction: Tensor) -> Tensor:
    """The target's label as a raw prediction; where there is none, the prediction itself."""
    if TASKS[pair.target].scores:
        channels = prediction.shape[1]
        one_hot = F.one_hot(pair.label.masked_fill(~pair.valid, 0), channels).movedim(-1, 1)
        label = 10.0 * one_hot.float()  # after the softmax, all but certain
    else:
        label = pair.label if pair.label.dim() == 4 else pair.label[:, None]
    return torch.where(pair.valid[:, None], label, prediction.detach())


class Perturbation(nn.Module):
    """Semi-supervised learning: the prediction of one view against that of another, where both can
    be trusted, as in the authors' code for the tasks without a label.

    Args:
        confidence: that the teacher's probability of its class must exceed (FixMatch).
        tolerance: that depth may differ by, as a fraction of the teacher's.
        absolute: the tolerance is in the network's unit instead, as the authors have it for rooms
            and inverse depths; on a street in metres next to nothing would pass.
    """

    def __init__(
        self, confidence: float = 0.95, tolerance: float = 0.1, absolute: bool = False
    ) -> None:
        super().__init__()
        self.confidence, self.tolerance, self.absolute = confidence, tolerance, absolute

    def forward(self, task: str, student: Tensor, teacher: Tensor) -> Tensor:
        """A task's loss, a mean over all pixels.

        Args:
            task: of the two.
            student: raw `(b, C, H, W)`.
            teacher: likewise, of the same pixels; gets no gradient.

        Returns:
            Scores: cross-entropy where the teacher is confident. Depth: absolute difference where
            it is tolerable. Normals: 1 − cos where it is below 0.1.
        """
        student, teacher = student.float(), teacher.detach().float()
        if TASKS[task].scores:
            confidence, classes = teacher.softmax(1).max(1)
            loss = F.cross_entropy(student, classes, reduction="none")
            return (loss * (confidence > self.confidence)).mean()
        if task == "depth":
            difference = (student[:, 0] - teacher[:, 0]).abs()
            tolerable = self.tolerance * (1.0 if self.absolute else teacher[:, 0].abs())
            return (difference * (difference.detach() < tolerable)).mean()
        distance = 1 - F.cosine_similarity(student, teacher, dim=1)
        return (distance * (distance.detach() < 0.1)).mean()


METHODS: dict[str, type[nn.Module]] = {
    "mapping": JointMapping,
    "contrastive": Contrastive,
    "discriminator": Discriminator,
    "direct_map": DirectMap,
    "perceptual_map": PerceptualMap,
}
"""The methods that look at pairs of tasks."""
