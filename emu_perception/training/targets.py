"""Outputs at full size in training, and targets of a teacher for its student."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.data.photometric import ColourJitter, colour_jitter
from emu_perception.inference.engines.activation import Normalization
from emu_perception.inference.engines.frozen import FrozenNetwork
from emu_perception.inference.model_file import LoadedModel
from emu_perception.networks.decoder import resize
from emu_perception.networks.raw_outputs import RawOutputs
from emu_perception.uncertainty import activate_depth, entropy


class Outputs(NamedTuple):
    """Activated maps `(B, H, W)` in float32; those of a task that is missing are None."""

    logits: Tensor | None
    """`(B, C, H, W)`."""
    mean: Tensor | None = None
    variance: Tensor | None = None
    """Predictive: with split uncertainty the sum of both parts."""
    epistemic_variance: Tensor | None = None
    mutual_information: Tensor | None = None
    normals: Tensor | None = None
    """`(B, 3, H, W)`, unit vectors."""
    edges: Tensor | None = None
    """Probability of an edge."""
    human_parts: Tensor | None = None
    """`(B, 7, H, W)` scores."""
    saliency: Tensor | None = None
    """Probability of a salient object."""


def activate(raw: RawOutputs, size: tuple[int, int], classes: int | None) -> Outputs:
    """Raw maps `(B, C, h, w)` of one network to full size, and then activated."""
    logits, information = None, None
    if raw.logits is not None:
        full = resize(raw.logits.float(), size)
        logits = full[:, :classes]
        if full.shape[1] > logits.shape[1]:
            information = F.softplus(full[:, -1])
    others: dict[str, Tensor] = {}
    if raw.normals is not None:
        others["normals"] = F.normalize(resize(raw.normals.float(), size), dim=1)
    if raw.human_parts is not None:
        others["human_parts"] = resize(raw.human_parts.float(), size)
    for name, scores in (("edges", raw.edges), ("saliency", raw.saliency)):
        if scores is not None:
            others[name] = torch.softmax(resize(scores.float(), size), dim=1)[:, 1]
    if raw.depth is None:
        return Outputs(logits, mutual_information=information, **others)
    full = resize(raw.depth.float(), size)
    if full.shape[1] == 1:
        return Outputs(logits, F.relu(full[:, 0]), mutual_information=information, **others)
    mean, variance = activate_depth(full[:, :2])
    epistemic = F.softplus(full[:, 2]) if full.shape[1] == 3 else None
    if epistemic is not None:
        variance = variance + epistemic
    return Outputs(logits, mean, variance, epistemic, information, **others)


class Targets(NamedTuple):
    """Targets of a teacher, all `(B, H, W)` unless noted; None for a task it lacks."""

    probabilities: Tensor | None = None
    """`(B, C, H, W)`, the members' mean softmax."""
    mutual_information: Tensor | None = None
    mean: Tensor | None = None
    """The members' mean depth."""
    variance: Tensor | None = None
    """Predictive variance of Eq. 10."""
    epistemic_variance: Tensor | None = None
    normals: Tensor | None = None
    """`(B, 3, H, W)`, the members' mean direction, unit vectors."""
    edges: Tensor | None = None
    """The members' mean probability of an edge."""


def pool_members(raw: RawOutputs, size: tuple[int, int], *, information: bool = True) -> Targets:
    """A teacher's raw outputs `(M, B, C, h, w)`, or `(B, C, h, w)`, to targets at full size.

    One member at a time: all of them at full size would take M times the memory. Without
    `information` there is no mutual information, which takes the logarithm of every score.
    """
    found: dict[str, Tensor] = {}
    if raw.logits is not None:
        members = raw.logits if raw.logits.dim() == 5 else raw.logits[None]
        total = own = torch.zeros((), device=members.device)
        for member in members:
            # Networks give channels innermost, and a softmax along them is three times as fast.
            scores = resize(member.float(), size).permute(0, 2, 3, 1)
            probabilities = torch.softmax(scores, dim=-1).permute(0, 3, 1, 2)
            total = total + probabilities
            if information:
                own = own + entropy(probabilities)
        found["probabilities"] = (total / len(members)).contiguous()
        if information:
            mutual = entropy(found["probabilities"]) - own / len(members)
            found["mutual_information"] = mutual.clamp_min(0)
    if raw.depth is not None:
        members = raw.depth if raw.depth.dim() == 5 else raw.depth[None]
        # Welford's sums: the difference of two large means would lose the small variance.
        mean = aleatoric = squares = torch.zeros((), device=members.device)
        for count, member in enumerate(members, start=1):
            own_mean, own_variance = activate_depth(resize(member.float(), size))
            step = own_mean - mean
            mean = mean + step / count
            squares = squares + step * (own_mean - mean)
            aleatoric = aleatoric + own_variance
        found["mean"] = mean
        found["epistemic_variance"] = squares / len(members)
        found["variance"] = aleatoric / len(members) + found["epistemic_variance"]
    # Few channels: all members at once.
    if raw.normals is not None:
        members = raw.normals if raw.normals.dim() == 5 else raw.normals[None]
        own = F.normalize(_resize_members(members, size), dim=2)
        found["normals"] = F.normalize(own.mean(0), dim=1)
    if raw.edges is not None:
        members = raw.edges if raw.edges.dim() == 5 else raw.edges[None]
        found["edges"] = torch.softmax(_resize_members(members, size), dim=2)[:, :, 1].mean(0)
    return Targets(**found)


def _resize_members(members: Tensor, size: tuple[int, int]) -> Tensor:
    """`(M, B, C, h, w)` to `(M, B, C, H, W)`."""
    return resize(members.float().flatten(0, 1), size).unflatten(0, members.shape[:2])


class Teacher:
    """A frozen teacher: folded, in `eval()`, without gradients.

    No module: it belongs to no checkpoint, no optimiser and no average of weights.
    """

    def __init__(self, model: LoadedModel, jitter: ColourJitter) -> None:
        if model.spec.arguments.get("split_uncertainty"):
            raise ValueError(f"{model.path} has split uncertainty: it is a student, not a teacher")
        if not model.traits.depth_variance and "depth" in model.spec.tasks:
            raise ValueError(
                f"{model.path} predicts no variance of depth: alone it cannot be a teacher; "
                "several such networks can, by the variance of their means"
            )
        self.spec, self.jitter = model.spec, jitter
        self._normalization = Normalization(model.spec)
        self._network = FrozenNetwork(model.network)

    def __deepcopy__(self, memo: object) -> Teacher:
        return self

    def to(self, device: torch.device) -> None:
        """Move to the student's device."""
        self._network.to(device)
        self._normalization.to(device)

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        seeds: Tensor,
        camera: Tensor | None = None,
        *,
        information: bool = True,
    ) -> Targets:
        """Predict targets for images.

        Args:
            image: `(B, 3, H, W)` uint8.
            seeds: `(B,)`, of the colour jitter.
            camera: `(B, 4)` fx, fy, cx, cy, for a teacher that takes rays.
            information: of `pool_members`.
        """
        factors = self.jitter.draw(seeds.tolist()).to(image.device)
        jittered = colour_jitter(image.float() / 255, factors) * 255
        size = (image.shape[-2], image.shape[-1])
        raw = self._network(self._normalization(jittered, camera))
        return pool_members(raw, size, information=information)
