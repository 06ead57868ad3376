"""SegFormer, DepthFormer and SegDepthFormer: one encoder, an all-MLP decoder per task.

EMUFormer (arXiv 2402.10580, section 3.1) shares SegFormer's encoder between a segmentation and a
depth decoder; the depth decoder has two output channels, the mean and the variance of a Gaussian.
SegFormer is this network with the task "semantic" alone, DepthFormer with "depth" alone; the
student EMUFormer is a SegDepthFormer whose training differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.decoder import FoldedDecoders, MLPDecoder
from emu_perception.networks.depth_unit import depth_unit
from emu_perception.networks.encoder import build_encoder, feature_widths
from emu_perception.networks.raw_outputs import DenseOutputs, RawOutputs
from emu_perception.networks.rays import RAY_CHANNELS
from emu_perception.tasks import WITH_UNCERTAINTY


class SegDepthFormer(nn.Module):
    """Encoder with an all-MLP decoder for each chosen task.

    Args:
        backbone: `mit_b0` … `mit_b5` or any timm model with four feature scales.
        classes: number of classes; needed for the task "semantic".
        tasks: "semantic" (SegFormer), "depth" (DepthFormer) or both (SegDepthFormer).
        width: common width of the decoders; by default 256 for B0 and B1, else 768.
        dropout: rate in the decoders and, in Mix Transformers, in MLPs and attention projections
            (Monte Carlo Dropout samples these); the decoders have at least SegFormer's 0.1.
        drop_path: rate of stochastic depth in the encoder while training.
        split_uncertainty: predict the epistemic part of both uncertainties in a channel of its own,
            as a student learns it from an ensemble.
        rays: the input has two more channels, `rays.ray_channels`: where each pixel looks.
        depth_variance: predict the variance of depth. False: a mean alone, as the losses `mse` and
            `huber` train it (EMUFormer, Tables 9 and 10).

    Raises:
        ValueError: an unknown task or backbone, classes missing, or a variance split that is not
            predicted.
    """

    def __init__(
        self,
        backbone: str = "mit_b2",
        classes: int | None = None,
        tasks: Sequence[str] = WITH_UNCERTAINTY,
        width: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        split_uncertainty: bool = False,
        rays: bool = False,
        depth_variance: bool = True,
    ) -> None:
        super().__init__()
        if split_uncertainty and not depth_variance:
            raise ValueError("split_uncertainty splits the variance of depth: it needs one")
        self.tasks = check_tasks(tasks, classes)
        self.backbone = backbone
        self.unit = depth_unit("metres")
        self.epistemic = split_uncertainty
        self.depth_variance = depth_variance
        self.encoder = build_encoder(
            backbone,
            dropout=dropout if backbone.startswith("mit_") else 0.0,
            drop_path=drop_path,
            channels=input_channels(rays),
        )
        extra = int(split_uncertainty)
        outputs = {
            "semantic": (classes or 0) + extra,
            "depth": depth_channels(depth_variance) + extra,
        }
        self.channels = {task: outputs[task] for task in self.tasks}
        """Output channels by task."""
        self.decoders = build_decoders(
            feature_widths(self.encoder),
            outputs,
            self.tasks,
            width or default_width(backbone),
            dropout,
        )
        if split_uncertainty:
            for task in self.tasks:
                # Epistemic parts are small; softplus(-3) = 0.05 is closer to them than softplus(0).
                bias = self.decoder(task).predict.bias
                assert bias is not None
                nn.init.constant_(bias[-1:], -3.0)

    def forward(self, image: Tensor) -> RawOutputs:
        """Normalised `(B, 3, H, W)`, with rays `(B, 5, H, W)`, H and W multiples of 32, to raw maps
        at 1/4."""
        return self.dense(image).scales[0]

    def dense(self, image: Tensor) -> DenseOutputs:
        """The same with the encoder's last features; depth is in metres."""
        features = self.encoder(image)
        raw = {task: decoder(features) for task, decoder in self.decoders.items()}
        return DenseOutputs(scales=(raw,), features={}, shared=features[-1])

    def decoder(self, task: str) -> MLPDecoder:
        """The decoder of one of the network's tasks."""
        decoder = self.decoders[task]
        assert isinstance(decoder, MLPDecoder)
        return decoder

    @torch.no_grad()
    def initialise_depth_mean(self, mean_depth: float) -> None:
        """Start the mean channel at a depth in metres, so that its ReLU is alive everywhere."""
        bias = self.decoder("depth").predict.bias
        assert bias is not None
        bias[0] = mean_depth

    @torch.no_grad()
    def initialise_depth_deviation(self, deviation: float) -> None:
        """Start the variance channel, if there is one, at a deviation in metres that errors do not
        dwarf.

        The likelihood divides squared errors by the variance: from softplus(0) = 0.69 m² its first
        losses on a street are a hundred times those of the classes, and the encoder learns nothing
        else.
        """
        bias = self.decoder("depth").predict.bias
        assert bias is not None
        bias[1:2] = inverse_softplus(deviation**2)

    def fold(self) -> FoldedSegDepthFormer:
        """The same network for inference, its decoders folded; shares the encoder's weights."""
        return FoldedSegDepthFormer(self)


def inverse_softplus(value: float) -> float:
    """The number whose softplus is a positive value."""
    return value + math.log(-math.expm1(-value))


def depth_channels(variance: bool) -> int:
    """Channels of a depth decoder: the mean, and its variance where it is predicted."""
    return 1 + int(variance)


def input_channels(rays: bool) -> int:
    """Channels of a network's input: colours, and the rays where it takes them."""
    return 3 + RAY_CHANNELS * int(rays)


def check_tasks(tasks: Sequence[str], classes: int | None) -> tuple[str, ...]:
    """The tasks, semantic first.

    Raises:
        ValueError: a task is unknown, or `semantic` has no number of classes.
    """
    unknown = set(tasks) - set(WITH_UNCERTAINTY)
    if unknown or not tasks:
        raise ValueError(f"tasks must be some of {WITH_UNCERTAINTY}, got {tuple(tasks)}")
    if "semantic" in tasks and (classes is None or classes < 1):
        raise ValueError("the task 'semantic' needs the number of classes")
    return tuple(task for task in WITH_UNCERTAINTY if task in tasks)


def default_width(backbone: str) -> int:
    """The decoders' width: 256 for B0 and B1, else 768."""
    return 256 if backbone in ("mit_b0", "mit_b1") else 768


def build_decoders(
    channels: Sequence[int],
    outputs: Mapping[str, int],
    tasks: Sequence[str],
    width: int,
    dropout: float,
) -> nn.ModuleDict:
    """A decoder per task, with at least SegFormer's dropout of 0.1."""
    return nn.ModuleDict(
        {task: MLPDecoder(channels, outputs[task], width, max(dropout, 0.1)) for task in tasks}
    )


class FoldedSegDepthFormer(nn.Module):
    """A trained `SegDepthFormer` with folded decoders: same outputs, a fraction of the cost."""

    def __init__(self, network: SegDepthFormer) -> None:
        super().__init__()
        self.tasks = network.tasks
        self.encoder = network.encoder
        self.decoders = FoldedDecoders([network.decoder(task) for task in network.tasks])
        self.eval()

    def forward(self, image: Tensor) -> RawOutputs:
        """Compute the same as `SegDepthFormer.forward`."""
        return dict(zip(self.tasks, self.decoders(self.encoder(image)), strict=True))
