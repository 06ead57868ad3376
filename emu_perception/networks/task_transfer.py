"""Task-transfer networks: from the prediction of one task to the prediction of another.

Nakano et al., "Cross-Task Consistency Learning Framework for Multi-Task Learning",
arXiv 2111.14122.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

WIDTHS = (64, 128, 256)
"""Channels at 1/2, 1/4 and 1/8 of the image, as in the paper."""


def upsample_aligned(x: Tensor) -> Tensor:
    """Twice the size, bilinear with aligned corners, as the paper's networks do."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def initialise_xavier(module: nn.Module) -> None:
    """Xavier-normal weights and zero biases of all convolutions."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


@torch.no_grad()
def start_channel(predict: nn.Conv2d, channel: int, value: float) -> None:
    """Let a channel of a 1x1 convolution without bias, whose inputs are about 1, start at a value.

    The weights keep their random magnitudes, but all pull the same way.
    """
    row = predict.weight[channel].abs()
    predict.weight[channel] = row * (value / row.sum())


class TaskTransferNetwork(nn.Module):
    """A small U-Net without batch-norm from one task's map to another's.

    Args:
        in_channels: of the task that it reads.
        out_channels: of the task that it predicts.
        widths: channels at 1/2, 1/4 and 1/8 of the image.
        scores: True where it reads class scores: it takes their log-softmax first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = WIDTHS,
        *,
        scores: bool = False,
    ) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.scores = scores
        self.down = nn.ModuleList(
            [_twice(in_channels, half), _twice(half, quarter), _twice(quarter, eighth)]
        )
        self.up = nn.ModuleList(
            [_twice(eighth, quarter), _twice(2 * quarter, half), _twice(2 * half, half)]
        )
        self.predict = nn.Conv2d(half, out_channels, 1, bias=False)
        initialise_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in, H, W)`, H and W multiples of 8, to `(B, out, H, W)` before any activation."""
        if self.scores:
            x = torch.log_softmax(x, dim=1)
        features = []
        for block in self.down:
            x = F.max_pool2d(block(x), 2)
            features.append(x)
        x = features.pop()
        for index, block in enumerate(self.up):
            skip = [features.pop()] if index else []
            x = block(upsample_aligned(torch.cat([x, *skip], dim=1)))
        return self.predict(x)

    @torch.no_grad()
    def start_at(self, value: float) -> None:
        """Start the first channel of the prediction at a value, whatever the network reads.

        Its last convolution has no bias, so the features before it start at 1, by theirs.
        """
        last: nn.Conv2d = self.up[-1][2]  # type: ignore[index, assignment]
        assert last.bias is not None
        last.bias.fill_(1.0)
        start_channel(self.predict, 0, value)


def _twice(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )
