"""A decoder with atrous spatial pyramid pooling and skip connections, up to the image's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.attention import projection
from emu_perception.networks.decoder import resize

WIDTHS = {4: 256, 3: 256, 2: 128, 1: 128, 0: 64}
"""Channels of the decoder by scale; scale s is at 1 / 2^s of the image."""


class ASPP(nn.Module):
    """Parallel dilated convolutions and a global mean, projected (arXiv 1706.05587, section 3.3).

    Args:
        in_channels, out_channels: widths.
        rates: of the dilation.
        dropout: rate after the projection.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.point = projection(in_channels, out_channels)
        self.dilated = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            )
            for rate in rates
        )
        self.mean = projection(in_channels, out_channels)
        self.project = projection((2 + len(rates)) * out_channels, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, out_channels, h, w)`."""
        mean = self.mean(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        parts = [self.point(x), *(dilated(x) for dilated in self.dilated), mean]
        return self.dropout(self.project(torch.cat(parts, dim=1)))


def convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution on a reflected border, ELU."""
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(in_channels, out_channels, 3), nn.ELU())


class ASPPDecoder(nn.Module):
    """The decoder of one task (DenseMTL, arXiv 2206.08927, section 4.1 and supplement A).

    Args:
        in_channels: width of the encoder's last features.
        skips: width of the encoder's features by scale 4 to 1; scales that it lacks get none.
        out_channels: of the task.
        outputs: scales that predict the task.
        widths: channels by scale.
    """

    def __init__(
        self,
        in_channels: int,
        skips: Mapping[int, int],
        out_channels: int,
        outputs: Sequence[int] = (1, 0),
        widths: Mapping[int, int] = WIDTHS,
    ) -> None:
        super().__init__()
        self.reduce, self.merge = nn.ModuleDict(), nn.ModuleDict()
        for scale, width in widths.items():
            first = scale == max(widths)
            self.reduce[str(scale)] = (
                ASPP(in_channels, width) if first else convolution(widths[scale + 1], width)
            )
            self.merge[str(scale)] = convolution(width + skips.get(scale, 0), width)
        self.outputs = nn.ModuleDict(
            {str(s): nn.Conv2d(widths[s], out_channels, 1) for s in outputs}
        )

    def step(self, scale: int, x: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        """Features of the scale above, or the encoder's last, to those of `scale`, of `size`."""
        x = self.reduce[str(scale)](x)
        if tuple(x.shape[-2:]) != tuple(size):
            x = F.interpolate(x, size=tuple(size), mode="nearest")
        if skip is not None:
            x = torch.cat([x, resize(skip, size)], dim=1)
        return self.merge[str(scale)](x)
