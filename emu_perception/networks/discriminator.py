"""Does a map look like one of the source domain or of the target domain?"""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm

_WIDTHS = (64, 128, 256, 512)


class Discriminator(nn.Module):
    """Five convolutions with stride 2 to a verdict on each patch (ADVENT, arXiv 1811.12833).

    Their spectral norm is 1 (Miyato et al., ICLR 2018), as in DenseMTL's domain adaptation.

    Args:
        channels: of the maps.
        widths: of the convolutions but the last.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = _WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths):
            layers += [_convolution(before, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _convolution(widths[-1], 1))

    def forward(self, maps: Tensor) -> Tensor:
        """`(B, channels, H, W)`, at least 32x32, to logits `(B, 1, H/32, W/32)`, > 0 = target."""
        return self.layers(maps)


def _convolution(in_channels: int, out_channels: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1))
