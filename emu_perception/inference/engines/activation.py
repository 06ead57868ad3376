"""The ends of every engine's graph: image to network input, raw outputs to maps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.camera import Intrinsics
from emu_perception.inference.deployment import FEATURES
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.postprocessing import MapSettings
from emu_perception.networks.decoder import resize
from emu_perception.networks.rays import ray_channels
from emu_perception.prediction import DEPTH_MAPS, UNLABELLED
from emu_perception.tasks import TASKS, other_tasks
from emu_perception.uncertainty import activate_depth, depth_maps, entropy, mean_softmax, temper

# Images are only read: those of the node share the memory of the message that they came in.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

SEMANTIC = ("classes", "confidence", "entropy", "mutual_information", "probabilities")
DEPTH = ("mean", "variance", "epistemic_variance")
_ACTIVATION_MAPS = {
    "labels": {"classes"},
    "confidence": {"confidence"},
    "semantic_entropy": {"entropy"},
    "probabilities": {"probabilities"},
    "depth": {"mean"},
    "depth_variance": {"mean", "variance"},
    "semantic_epistemic": {"mutual_information"},
    "depth_epistemic": {"mean", "epistemic_variance"},
    FEATURES: {FEATURES},
}
"""The maps here that each `Prediction` field, and the features, are made of; any other field is one
map of its own name."""
PREDICTION_NAMES = {
    "classes": "labels",
    "entropy": "semantic_entropy",
    "mutual_information": "semantic_epistemic",
}
"""`Prediction` fields that have another name here."""


def prepare(image: np.ndarray, size: Sequence[int], device: torch.device) -> Tensor:
    """`(H, W, 3)` uint8 to `(1, 3, h, w)` in 0-255 on the device, low-pass filtered if shrunk."""
    return prepare_pixels(torch.from_numpy(image).to(device), size)


def prepare_pixels(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """`prepare` for an image that is on the device already."""
    channels = pixels.permute(2, 0, 1)[None].float()  # bytes would be rounded again
    if tuple(size) == tuple(pixels.shape[:2]):
        return channels
    return F.interpolate(channels, size=tuple(size), mode="bilinear", antialias=True)


def camera_tensor(camera: Intrinsics) -> Tensor:
    """`(1, 4)` float32 fx, fy, cx, cy."""
    return torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32)


class Normalization(nn.Module):
    """0-255, and the rays where the network takes them, to what the encoder was trained on."""

    scale: Tensor
    offset: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.rays = spec.rays
        std = torch.tensor(spec.normalization_std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer(
            "offset", (torch.tensor(spec.normalization_mean) / std).view(1, 3, 1, 1)
        )

    def forward(self, image: Tensor, camera: Tensor | None = None) -> Tensor:
        """`(B, 3, H, W)` of any number type to float32, with rays to `(B, 5, H, W)`.

        Args:
            image: colours in 0-255.
            camera: `(B, 4)` fx, fy, cx, cy in pixels of the image; a network without rays has no
                use for it.

        Raises:
            ValueError: the network takes rays, and there is no camera.
        """
        colours = image.float() * self.scale - self.offset
        if not self.rays:
            return colours
        if camera is None:
            raise ValueError("this network takes the camera's rays: give fx, fy, cx, cy too")
        channels = ray_channels(camera.float(), image.shape[-2], image.shape[-1])
        return torch.cat([colours, channels], dim=1)


class NetworkWithFeatures(nn.Module):
    """Normalisation and network as one graph, and what the encoder sees as one vector.

    Args:
        network: folded or not; of an ensemble, the first member's encoder counts.
        spec: its description.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.normalize, self.network = Normalization(spec), network
        self.has_features = find_encoder(network) is not None

    def forward(self, pixels: Tensor, camera: Tensor | None = None) -> tuple[Tensor, ...]:
        """`(1, 3, h, w)` in 0-255, with rays also `(1, 4)`, to the raw outputs by task and, where
        there is an encoder, `(1, E)` features: its coarsest map averaged over the image."""
        with watched(find_encoder(self.network)) as coarsest:
            raw = self.network(self.normalize(pixels, camera))
        return (*raw.values(), *(found.mean((2, 3)) for found in coarsest))


@contextmanager
def watched(encoder: nn.Module | None) -> Iterator[list[Tensor]]:
    """A list that takes the coarsest feature map of each run of an encoder.

    Its hook goes when the context ends: the encoder is the model's, which may be copied.
    """
    coarsest: list[Tensor] = []

    def keep(module: nn.Module, given: Any, found: Any) -> None:
        coarsest.append(found[-1] if isinstance(found, list | tuple) else found)

    hook = None if encoder is None else encoder.register_forward_hook(keep)
    try:
        yield coarsest
    finally:
        if hook is not None:
            hook.remove()


def find_encoder(network: nn.Module) -> nn.Module | None:
    """A network's encoder, the first member's of an ensemble; None where there is none."""
    for module in network.modules():
        encoder = getattr(module, "encoder", None)
        if isinstance(encoder, nn.Module):
            return encoder
    return None


def finish_maps(
    found: Mapping[str, Tensor],
    wanted: Collection[str],
    settings: MapSettings,
    focal_ratio: float | Tensor | None = None,
    focal_std: float | Tensor | None = None,
) -> dict[str, Tensor]:
    """Maps of activations to those of `Prediction`: metres, invalid depth, doubtful labels.

    Args:
        found: by the names of activations.
        wanted: names of `Prediction` fields.
        settings: what `postprocessing` takes too.
        focal_ratio, focal_std: instead of the settings', as tensors of one number in a graph.
    """
    ratio = settings.focal_ratio if focal_ratio is None else focal_ratio
    std = settings.focal_std if focal_std is None else focal_std
    maps = {PREDICTION_NAMES.get(name, name): value for name, value in found.items()}
    if "mean" in found:
        maps.update(_metric_depth(found, settings, ratio, std))
    if settings.min_confidence > 0 and "confidence" in maps:
        doubtful = maps["confidence"] < settings.min_confidence
        maps["confidence"] = maps["confidence"].masked_fill(doubtful, 0.0)
        if "labels" in maps:
            maps["labels"] = maps["labels"].masked_fill(doubtful, UNLABELLED)
    return {name: maps[name] for name in wanted if name in maps}


def _metric_depth(
    found: Mapping[str, Tensor],
    settings: MapSettings,
    ratio: float | Tensor,
    std: float | Tensor,
) -> dict[str, Tensor]:
    """Canonical mean and variance to metres, NaN where invalid."""
    depth = found["mean"] * ratio
    if not settings.masks_depth:
        depth = depth.clamp(*settings.depth_range)
    maps = {"depth": depth}
    if "variance" in found:
        maps["depth_variance"] = found["variance"] * ratio**2
        if isinstance(std, Tensor) or std > 0:
            maps["depth_variance"] = maps["depth_variance"] + (std * depth) ** 2
    if "epistemic_variance" in found:
        maps["depth_epistemic"] = found["epistemic_variance"] * ratio**2
    if not settings.masks_depth:
        return maps
    nearest, farthest = settings.depth_range
    invalid = (depth <= 0) | (depth < nearest) | (depth > farthest)
    if "classes" in found:
        for index in settings.without_depth:
            invalid = invalid | (found["classes"] == index)
    return {name: value.masked_fill(invalid, math.nan) for name, value in maps.items()}


def activation_maps(wanted: Collection[str], settings: MapSettings) -> frozenset[str]:
    """The maps of activations that `finish_maps` needs for some of `Prediction`'s fields."""
    maps = set().union(*(_ACTIVATION_MAPS.get(name, {name}) for name in wanted))
    if settings.masks_depth and settings.without_depth and DEPTH_MAPS & set(wanted):
        maps.add("classes")
    if "labels" in wanted and settings.min_confidence > 0:
        maps.add("confidence")
    return frozenset(maps)


class SemanticActivation(nn.Module):
    """Upsampled logits to the wanted semantic maps; raw outputs are resized before the softmax.

    Args:
        wanted: some of `SEMANTIC`.
        size: height and width of the maps.
        temperature: divides the logits; a predicted mutual information it leaves as it is.
        classes: C; one more channel is the mutual information.
    """

    def __init__(
        self, wanted: Sequence[str], size: Sequence[int], temperature: float, classes: int
    ) -> None:
        super().__init__()
        self.wanted, self.size, self.temperature = tuple(wanted), tuple(size), temperature
        self.classes = classes

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, C, h, w)`, or `(M, 1, C, h, w)`, to `(H, W)` maps in the order of `wanted`."""
        members = raw if raw.dim() == 5 else raw[None]
        count = members.shape[0]
        if self.wanted == ("classes",) and count == 1:
            full = resize(members[0, :, : self.classes], self.size)
            return (full[0].argmax(0).to(torch.uint8),)
        # One member at a time: all of them at full size would take M times the memory.
        probabilities, entropies = torch.zeros(()), torch.zeros(())
        for i in range(count):
            full = resize(members[i, :, : self.classes], self.size)
            own = mean_softmax(full[None], self.temperature if count == 1 else 1.0)[0]
            probabilities = own if i == 0 else probabilities + own
            if count > 1 and "mutual_information" in self.wanted:
                entropies = entropy(own, 0) if i == 0 else entropies + entropy(own, 0)
        if count > 1:
            probabilities = probabilities / count
            uncalibrated = probabilities
            probabilities = temper(probabilities, self.temperature, dim=0)
        confidence, classes = probabilities.max(0)
        maps = {
            "classes": classes.to(torch.uint8),
            "confidence": confidence,
            "probabilities": probabilities,
        }
        if "entropy" in self.wanted or "mutual_information" in self.wanted:
            maps["entropy"] = entropy(probabilities, 0)
        if "mutual_information" in self.wanted:
            if count > 1:
                # The members' disagreement is not a matter of calibration.
                mutual = (entropy(uncalibrated, 0) - entropies / count).clamp_min(0)
                mutual = torch.minimum(mutual, maps["entropy"])
            else:
                full = resize(members[0, :, self.classes :].float(), self.size)[0, 0]
                mutual = torch.minimum(F.softplus(full), maps["entropy"])
            maps["mutual_information"] = mutual
        return tuple(maps[name] for name in self.wanted)


class DepthActivation(nn.Module):
    """Upsampled raw depth to mean and predictive variance."""

    def __init__(self, wanted: Sequence[str], size: Sequence[int], variance_scale: float) -> None:
        super().__init__()
        self.wanted, self.size, self.variance_scale = tuple(wanted), tuple(size), variance_scale

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, 2, h, w)`, or `(M, 1, 2, h, w)`, to `(H, W)` maps in the order of `wanted`.

        A third channel is the epistemic variance; one channel is the mean alone, of which several
        members have a variance.
        """
        full = resize(raw.flatten(0, -4), self.size)[:, None]
        mean, variance = activate_depth(full[:, :, :2], dim=2)
        predicted = F.softplus(full[0, :, 2].float()) if full.shape[2] == 3 else None
        maps = depth_maps(mean, variance, self.variance_scale, predicted)
        found = {"mean": maps.mean[0], "variance": maps.variance[0]}
        if maps.epistemic_variance is not None:
            found["epistemic_variance"] = maps.epistemic_variance[0]
        return tuple(found[name] for name in self.wanted)


class _OneMap(nn.Module):
    """The activation of a task with one map."""

    def __init__(self, wanted: Sequence[str], size: Sequence[int]) -> None:
        super().__init__()
        self.wanted, self.size = tuple(wanted), tuple(size)


class DirectionActivation(_OneMap):
    """Upsampled raw directions to unit vectors."""

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, 3, h, w)`, or `(M, 1, 3, h, w)`, to one `(H, W, 3)`, the members' mean direction."""
        members = F.normalize(resize(raw.float().flatten(0, -4), self.size), dim=1)
        return (F.normalize(members.mean(0), dim=0).permute(1, 2, 0),)


class BinaryActivation(_OneMap):
    """Upsampled scores of two classes to the probability of the second, such as an edge."""

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, 2, h, w)`, or `(M, 1, 2, h, w)`, to one `(H, W)`, the members' mean."""
        members = torch.softmax(resize(raw.float().flatten(0, -4), self.size), dim=1)
        return (members[:, 1].mean(0),)


class ClassesActivation(_OneMap):
    """Upsampled scores of classes, such as human parts, to their ids."""

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, C, h, w)`, or `(M, 1, C, h, w)`, to one `(H, W)` uint8."""
        full = resize(raw.flatten(0, -4), self.size)
        scores = full[0] if len(full) == 1 else torch.softmax(full.float(), dim=1).mean(0)
        return (scores.argmax(0).to(torch.uint8),)


Activation: TypeAlias = SemanticActivation | DepthActivation | _OneMap
_OF_KIND: dict[str, type[_OneMap]] = {
    "direction": DirectionActivation,
    "binary": BinaryActivation,
    "classes": ClassesActivation,
}


def requested(spec: ModelSpec, wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """The wanted maps by task, in the order of a module's outputs; only tasks of the model."""
    of_tasks: dict[str, tuple[str, ...]] = {"semantic": SEMANTIC, "depth": DEPTH}
    of_tasks |= {name: (task.field,) for name, task in other_tasks().items()}
    found = {task: tuple(name for name in of_tasks[task] if name in wanted) for task in spec.tasks}
    return {task: names for task, names in found.items() if names}


def activations(
    spec: ModelSpec, wanted: frozenset[str], size: Sequence[int]
) -> dict[str, Activation]:
    """The modules that the wanted maps need, by task; their `wanted` names the outputs' order."""
    found: dict[str, Activation] = {}
    for task, names in requested(spec, wanted).items():
        if task == "semantic":
            assert spec.label_set is not None
            found[task] = SemanticActivation(
                names, size, spec.calibration.temperature, len(spec.label_set)
            )
        elif task == "depth":
            found[task] = DepthActivation(names, size, spec.calibration.depth_variance_scale)
        else:
            found[task] = _OF_KIND[TASKS[task].kind](names, size)
    return found
