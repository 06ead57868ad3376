"""SegNet with a head per task, as MTAN and MTPSL use it.

Badrinarayanan et al., "SegNet", TPAMI 2017; heads as in Liu et al., "End-to-End Multi-Task Learning
with Attention" (CVPR 2019) and Li et al., "Learning Multiple Dense Prediction Tasks from Partially
Annotated Data" (CVPR 2022, arXiv 2111.14893).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.networks.task_transfer import initialise_xavier

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five stages, at 1/1 … 1/16 of the image before their pooling."""
DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions of the stages: VGG-16's thirteen."""


def convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution, batch-norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def stage(in_channels: int, width: int, out_channels: int, depth: int) -> nn.ModuleList:
    """`depth` convolutions whose first one changes the width, and the last one to the output's."""
    inner = [in_channels, *[width] * (depth - 1), out_channels]
    return nn.ModuleList(convolution(a, b) for a, b in pairwise(inner))


class Encoded(NamedTuple):
    """Outputs of SegNet's encoder, stage by stage."""

    first: list[Tensor]
    """After the first convolution, at 1/1 … 1/16 of the image."""
    last: list[Tensor]
    """After the last one, before the pooling."""
    places: list[Tensor]
    """Indices of the maxima that the pooling kept."""
    pooled: Tensor
    """The last stage's pooled features, at 1/32."""


class SegNetEncoder(nn.Module):
    """Five stages of convolutions, each followed by max-pooling whose places are remembered."""

    def __init__(self, widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS) -> None:
        super().__init__()
        before = (3, *widths)
        self.stages = nn.ModuleList(
            stage(before[i], widths[i], widths[i], depth) for i, depth in enumerate(depths)
        )

    def forward(self, image: Tensor) -> Encoded:
        """`(B, 3, H, W)`, H and W multiples of 32, to what the decoder needs."""
        first, last, places = [], [], []
        x = image
        for convolutions in self.stages:
            x = convolutions[0](x)  # type: ignore[index]
            first.append(x)
            for each in convolutions[1:]:  # type: ignore[index]
                x = each(x)
            last.append(x)
            x, indices = F.max_pool2d(x, 2, return_indices=True)
            places.append(indices)
        return Encoded(first, last, places, x)


def unpool(pooled: Tensor, places: Tensor) -> Tensor:
    """Put pooled values back where they were, zeros elsewhere.

    As `max_unpool2d` with a kernel of 2, in operations that every runtime has.

    Args:
        pooled: `(B, C, h, w)`.
        places: `(B, C, h, w)` int64, indices into the rows of `(B, C, 2h, 2w)`.
    """
    batch, channels, height, width = pooled.shape
    full = pooled.new_zeros(batch, channels, 4 * height * width)
    full = full.scatter(2, places.flatten(2), pooled.flatten(2))
    return full.reshape(batch, channels, 2 * height, 2 * width)


class SegNet(MultiTaskNetwork):
    """SegNet's encoder and decoder, shared, and a head of two convolutions per task.

    Args:
        classes: number of classes; needed for the task "semantic".
        tasks: some of `tasks.TASKS`.
        widths: channels of the five stages.
        unit: of the depth channel.
        depth_variance: see `MultiTaskNetwork`.
        backbone: "segnet".
    """

    def __init__(
        self,
        classes: int | None = None,
        tasks: Sequence[str] = ("semantic", "depth", "normals"),
        widths: Sequence[int] = WIDTHS,
        unit: str = "metres",
        depth_variance: bool = False,
        backbone: str = "segnet",
    ) -> None:
        super().__init__(tasks, classes, unit, depth_variance)
        if backbone != "segnet":
            raise ValueError(
                f"{type(self).__name__} has SegNet's encoder: backbone segnet, not '{backbone}'"
            )
        self.backbone = backbone
        self.encoder = SegNetEncoder(widths)
        after = (widths[0], *widths[:-1])
        # The decoder mirrors the encoder; a stage goes over to the next width in its first layer.
        self.decoder = nn.ModuleList(
            stage(widths[i], after[i], after[i], DEPTHS[i]) for i in reversed(range(len(widths)))
        )
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Conv2d(widths[0], widths[0], 3, padding=1),
                    nn.Conv2d(widths[0], self.channels[task], 1),
                )
                for task in self.tasks
            }
        )
        initialise_xavier(self)

    def dense(self, image: Tensor) -> DenseOutputs:
        """Normalised `(B, 3, H, W)`, H and W multiples of 32, to maps at full size."""
        encoded = self.encoder(image)
        upsampled, decoded = self.decode(encoded)
        features = self.task_features(encoded, upsampled, decoded)
        predictions = {task: head(features[task]) for task, head in self.heads.items()}
        return DenseOutputs(scales=(predictions,), features=features, shared=encoded.pooled)

    def decode(self, encoded: Encoded) -> tuple[list[Tensor], list[Tensor]]:
        """The decoder's features before and after the convolutions of each stage, deepest first."""
        upsampled, decoded = [], []
        x = encoded.pooled
        for convolutions, indices in zip(self.decoder, reversed(encoded.places), strict=True):
            x = unpool(x, indices)
            upsampled.append(x)
            for each in convolutions:  # type: ignore[attr-defined]
                x = each(x)
            decoded.append(x)
        return upsampled, decoded

    def task_features(
        self, encoded: Encoded, upsampled: list[Tensor], decoded: list[Tensor]
    ) -> dict[str, Tensor]:
        """Input of each task's head; here the same for all."""
        return dict.fromkeys(self.tasks, decoded[-1])

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        if "depth" in self.tasks:
            yield self.heads["depth"][-1]  # type: ignore[index, misc]
