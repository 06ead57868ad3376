"""MTAN: a shared SegNet, and attention modules that pick features for each task.

Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019 (arXiv 1803.10704);
a row of MTPSL's table under full labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.segnet import WIDTHS, Encoded, SegNet, convolution
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


class MTAN(SegNet):
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
        super().__init__(classes, tasks, widths, unit, depth_variance, backbone)
        count = len(widths)
        after = (widths[0], *widths[:-1])  # a decoder stage's width
        following = (*widths[1:], widths[-1])  # of the next encoder stage
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
        initialise_xavier(self)

    def task_features(
        self, encoded: Encoded, upsampled: list[Tensor], decoded: list[Tensor]
    ) -> dict[str, Tensor]:
        """Shared features that the attention of each task selects, stage by stage."""
        return {task: self._attend(task, encoded, upsampled, decoded) for task in self.tasks}

    def _attend(
        self, task: str, encoded: Encoded, upsampled: list[Tensor], decoded: list[Tensor]
    ) -> Tensor:
        """One task's way through the shared features."""
        masks: nn.ModuleList = self.encoder_attention[task]  # type: ignore[assignment]
        x: Tensor | None = None
        for i, mask in enumerate(masks):
            given = encoded.first[i] if x is None else torch.cat([encoded.first[i], x], dim=1)
            x = F.max_pool2d(self.encoder_shared[i](mask(given) * encoded.last[i]), 2)
        assert x is not None
        masks = self.decoder_attention[task]  # type: ignore[assignment]
        for step, i in enumerate(reversed(range(len(masks)))):
            x = self.decoder_shared[i](upsample_aligned(x))
            x = masks[i](torch.cat([upsampled[step], x], dim=1)) * decoded[step]
        return x
