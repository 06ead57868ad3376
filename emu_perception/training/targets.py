"""Outputs at full size in training, and targets of a teacher for its student."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
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
from emu_perception.tasks import TASKS
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
    others: Mapping[str, Tensor] = MappingProxyType({})
    """By task, as its kind is activated: scores `(B, C, H, W)` of classes, probability `(B, H, W)`
    of the second of two, unit vectors `(B, 3, H, W)`."""
    others_raw: Mapping[str, Tensor] = MappingProxyType({})
    """By task, `(B, channels, H, W)`: the same before the activation, as losses take them."""


def activate(raw: RawOutputs, size: tuple[int, int], classes: int | None) -> Outputs:
    """Raw maps `(B, C, h, w)` of one network to full size, and then activated."""
    found: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    others_raw: dict[str, Tensor] = {}
    for task, maps in raw.items():
        full = resize(maps.float(), size)
        kind = TASKS[task].kind
        if task == "semantic":
            found["logits"] = full[:, :classes]
            if full.shape[1] > found["logits"].shape[1]:
                found["mutual_information"] = F.softplus(full[:, -1])
        elif kind == "depth" and full.shape[1] == 1:
            found["mean"] = F.relu(full[:, 0])
        elif kind == "depth":
            found["mean"], found["variance"] = activate_depth(full[:, :2])
            if full.shape[1] == 3:
                found["epistemic_variance"] = F.softplus(full[:, 2])
                found["variance"] = found["variance"] + found["epistemic_variance"]
        else:
            others_raw[task] = full
            if kind == "direction":
                others[task] = F.normalize(full, dim=1)
            else:
                others[task] = full if kind == "classes" else torch.softmax(full, dim=1)[:, 1]
    return Outputs(found.pop("logits", None), **found, others=others, others_raw=others_raw)


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
    others: Mapping[str, Tensor] = MappingProxyType({})
    """By task: the members' mean probabilities `(B, C, H, W)` of classes, or `(B, H, W)` of the
    second of two; their mean direction `(B, 3, H, W)`, unit vectors."""


def pool_members(raw: RawOutputs, size: tuple[int, int], *, information: bool = True) -> Targets:
    """A teacher's raw outputs `(M, B, C, h, w)`, or `(B, C, h, w)`, to targets at full size.

    One member at a time: all of them at full size would take M times the memory. Without
    `information` there is no mutual information, which takes the logarithm of every score.
    """
    found: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for task, maps in raw.items():
        members = maps if maps.dim() == 5 else maps[None]
        if task == "semantic":
            found |= _pool_classes(members, size, information)
        elif task == "depth":
            found |= _pool_depth(members, size)
        else:  # few channels: all members at once
            others[task] = _pool_others(members, size, TASKS[task].kind)
    return Targets(**found, others=others)


def _pool_classes(members: Tensor, size: tuple[int, int], information: bool) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
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
    return found


def _pool_depth(members: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    # Welford's sums: the difference of two large means would lose the small variance.
    mean = aleatoric = squares = torch.zeros((), device=members.device)
    for count, member in enumerate(members, start=1):
        own_mean, own_variance = activate_depth(resize(member.float(), size))
        step = own_mean - mean
        mean = mean + step / count
        squares = squares + step * (own_mean - mean)
        aleatoric = aleatoric + own_variance
    epistemic = squares / len(members)
    variance = aleatoric / len(members) + epistemic
    return {"mean": mean, "variance": variance, "epistemic_variance": epistemic}


def _pool_others(members: Tensor, size: tuple[int, int], kind: str) -> Tensor:
    full = resize(members.float().flatten(0, 1), size).unflatten(0, members.shape[:2])
    if kind == "direction":
        return F.normalize(F.normalize(full, dim=2).mean(0), dim=1)
    probabilities = torch.softmax(full, dim=2)
    return (probabilities if kind == "classes" else probabilities[:, :, 1]).mean(0)


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
