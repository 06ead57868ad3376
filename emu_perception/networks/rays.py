"""The rays that a camera's pixels look along, as a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

RAY_CHANNELS = 2
"""x / z and y / z of each pixel's ray, after the colours."""


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """`(B, 4)` fx, fy, cx, cy in pixels to `(B, H, W, 3)` rays (x, y, 1) through their centres.

    Axes are those of an optical frame (REP-103): x right, y down, z forward.
    """
    fx, fy, cx, cy = (each[:, None, None] for each in intrinsics.unbind(1))
    device = intrinsics.device
    x = (torch.arange(width, device=device)[None, None] - cx) / fx
    y = (torch.arange(height, device=device)[None, :, None] - cy) / fy
    x, y = torch.broadcast_tensors(x, y)
    return torch.stack([x, y, torch.ones_like(x)], -1)


def ray_channels(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """`(B, 4)` fx, fy, cx, cy to `(B, 2, H, W)`, the channels of `RAY_CHANNELS`."""
    return pixel_rays(intrinsics, height, width)[..., :RAY_CHANNELS].permute(0, 3, 1, 2)
