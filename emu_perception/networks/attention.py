"""Attention between the features of two tasks (DenseMTL, arXiv 2206.08927, section 3.1)."""

from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


def projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch-norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class SelfAttention(nn.Module):
    """Features gated by a sigmoid mask of their own (PAD-Net, arXiv 1805.04409, Eq. 4 and 5)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mask = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.features = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, out_channels, h, w)`."""
        return self.features(x) * torch.sigmoid(self.mask(x))


class SpatialCrossTaskAttention(nn.Module):
    """Correlation-guided attention from a source task's places to a target's (Eq. 1 and 2).

    The target is downscaled by nearest neighbour and the source by maximum, so that the
    correlation matrix has (hw / scale^2)^2 entries; attention that is computed in blocks never
    holds all of them.

    Args:
        channels: of both feature maps.
        scale: of the downscaling; heights and widths are its multiples.
        alpha: multiply by a learned factor per channel that starts at 0.
    """

    def __init__(self, channels: int, scale: int, alpha: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.query = projection(channels, channels)
        self.key = projection(channels, channels)
        self.value = projection(channels, channels)
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, 1)) if alpha else None

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Two `(B, C, h, w)` to what of the source the target attends to, of the same shape."""
        low = target[:, :, :: self.scale, :: self.scale]
        pooled = F.max_pool2d(source, self.scale)
        query, key, value = (
            f(x).flatten(2).transpose(1, 2).contiguous()
            for f, x in ((self.query, low), (self.key, pooled), (self.value, pooled))
        )
        # One head: the axis makes torch choose its blockwise kernel.
        found = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        found = found[:, 0].transpose(1, 2).reshape(low.shape)
        # By a factor: a size OpenVINO would lose while it fixes the shapes of what it converts.
        found = F.interpolate(found, scale_factor=float(self.scale), mode="nearest")
        return found if self.alpha is None else found * self.alpha


class ChannelCrossTaskAttention(nn.Module):
    """The same between channels: which of the source's channels resemble a target's.

    A correlation is that of two channels over the image, from -1 to 1 whatever its size. A softmax
    of such numbers is nearly uniform: they are divided by a learned temperature before it (XCiT,
    El-Nouby et al., NeurIPS 2021, arXiv 2106.09681, Eq. 2), which starts at 0.1 (Swin Transformer
    V2, arXiv 2111.09883, section 3.2). As in DANet (arXiv 1809.02983, Eq. 4) nothing else is
    learned but the gate.

    Args:
        channels: of both feature maps.
        alpha: see `SpatialCrossTaskAttention`.
    """

    def __init__(self, channels: int, alpha: bool = True) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, 1)) if alpha else None

    def weights(self, target: Tensor, source: Tensor) -> Tensor:
        """Two `(B, C, h, w)` to `(B, C, C)`: of each target channel, weights of the source's."""
        # In half precision a channel without variance would be 0 / 0.
        query, key = (
            F.normalize((x - x.mean(2, keepdim=True)).float(), dim=2).to(x.dtype)
            for x in (target.flatten(2), source.flatten(2))
        )
        # Below a temperature of 0.01 a softmax only chooses, and learns no more.
        sharpness = self.log_sharpness.exp().clamp_max(100.0)
        return torch.softmax(sharpness * (query @ key.transpose(1, 2)), dim=-1)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Two `(B, C, h, w)` to one."""
        found = (self.weights(target, source) @ source.flatten(2)).reshape(target.shape)
        return found if self.alpha is None else found * self.alpha
