"""MTAN: a shared SegNet, and attention modules that pick features for each task.

Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019 (arXiv 1803.10704);
a row of MTPSL's table under full labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.multitask import DenseOutputs, MultiTaskNetwork
from emu_perception.networks.segnet import DEPTHS, WIDTHS, convolution, stage
from emu_perception.networks.task_transfer import initialise_xavier, upsample_aligned


def attention(in_channels: int, width: int) -> nn.Sequential:
    """A mask in (0, 1) for `width` shared features."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.Sigmoid(),
    )


class SharedStages(nn.Module):
    """The encoder that all tasks read, stage by stage."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        before = (3, *widths)
        self.stages = nn.ModuleList(
            stage(before[i], width, width, DEPTHS[i]) for i, width in enumerate(widths)
        )

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """First and last features of each stage, the places of the maxima, and the last pooling."""
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
        return first, last, places, x


class MTAN(MultiTaskNetwork):
    """SegNet with an attention module per task and stage.

    Args: see `SegNet`.
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
            raise ValueError(f"MTAN is built on SegNet: backbone segnet, not '{backbone}'")
        self.backbone = backbone
        count = len(widths)
        after = (widths[0], *widths[:-1])  # a decoder stage's width
        following = (*widths[1:], widths[-1])  # of the next encoder stage
        self.encoder = SharedStages(widths)
        self.decoder = nn.ModuleList(
            stage(widths[i], after[i], after[i], DEPTHS[i]) for i in range(count)
        )
        self.encoder_attention = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    attention(widths[i] * (1 if i == 0 else 2), widths[i]) for i in range(count)
                )
                for task in self.tasks
            }
        )
        self.decoder_attention = nn.ModuleDict(
            {
                task: nn.ModuleList(attention(widths[i] + after[i], after[i]) for i in range(count))
                for task in self.tasks
            }
        )
        # What follows an attention is shared by the tasks.
        self.encoder_shared = nn.ModuleList(
            convolution(widths[i], following[i]) for i in range(count)
        )
        self.decoder_shared = nn.ModuleList(convolution(widths[i], after[i]) for i in range(count))
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
        first, last, places, x = self.encoder(image)
        shared = x
        upsampled, decoded = [], []
        for i in reversed(range(len(places))):
            x = F.max_unpool2d(x, places[i], [2, 2])
            upsampled.append(x)
            for each in self.decoder[i]:  # type: ignore[attr-defined]
                x = each(x)
            decoded.append(x)
        features = {
            task: self._attend(task, first, last, upsampled, decoded) for task in self.tasks
        }
        predictions = {task: self.heads[task](features[task]) for task in self.tasks}
        return DenseOutputs(scales=(predictions,), features=features, shared=shared)

    def _attend(
        self,
        task: str,
        first: list[Tensor],
        last: list[Tensor],
        upsampled: list[Tensor],
        decoded: list[Tensor],
    ) -> Tensor:
        """One task's way through the shared features."""
        masks: nn.ModuleList = self.encoder_attention[task]  # type: ignore[assignment]
        x: Tensor | None = None
        for i, mask in enumerate(masks):
            given = first[i] if x is None else torch.cat([first[i], x], dim=1)
            x = F.max_pool2d(self.encoder_shared[i](mask(given) * last[i]), 2)
        assert x is not None
        masks = self.decoder_attention[task]  # type: ignore[assignment]
        for step, i in enumerate(reversed(range(len(masks)))):
            x = self.decoder_shared[i](upsample_aligned(x))
            x = masks[i](torch.cat([upsampled[step], x], dim=1)) * decoded[step]
        return x

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        if "depth" in self.tasks:
            yield self.heads["depth"][-1]  # type: ignore[index, misc]
