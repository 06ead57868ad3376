"""One view of a scene made from another by depth and motion, and how well it fits.

Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation" (Monodepth2, ICCV 2019,
arXiv 1806.01260), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_NEAREST = 1e-3
"""Metres: points next to or behind the other camera are taken to be this far ahead of it."""


def synthesize(source: Tensor, depth: Tensor, intrinsics: Tensor, motion: Tensor) -> Tensor:
    """The target view as its depth and the camera's motion make it from the source view.

    Args:
        source: `(B, C, H, W)` float.
        depth: `(B, H, W)`, metres, of the target view.
        intrinsics: `(B, 4)`: fx, fy, cx, cy in pixels, of both views.
        motion: `(B, 4, 4)`, from the target's optical frame to the source's.

    Returns:
        `(B, C, H, W)`; beyond the source's border its outermost pixels go on.
    """
    height, width = depth.shape[-2:]
    fx, fy, cx, cy = (value[:, None, None] for value in intrinsics.unbind(1))
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    points = torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], 1)
    motion = motion.to(depth.dtype)
    with torch.autocast(depth.device.type, enabled=False):  # half precision is off by a pixel
        moved = motion[:, :3, :3] @ points.flatten(2) + motion[:, :3, 3:]
    x, y, z = moved.unflatten(2, (height, width)).unbind(1)
    z = z.clamp_min(_NEAREST)
    # Pixel centres are at whole numbers; the grid's -1 and 1 are the outer edges.
    grid = torch.stack(
        [
            (2 * (fx * x / z + cx) + 1) / width - 1,
            (2 * (fy * y / z + cy) + 1) / height - 1,
        ],
        dim=-1,
    )
    return F.grid_sample(source, grid, padding_mode="border", align_corners=False)


def photometric_error(first: Tensor, second: Tensor, ssim_share: float = 0.85) -> Tensor:
    """ssim_share · (1 − SSIM) / 2 + (1 − ssim_share) · L1 of images in 0–1 (Eq. 2).

    Args:
        first, second: `(B, 3, H, W)`.

    Returns:
        `(B, H, W)`, 0–1.
    """
    difference = (first - second).abs().mean(1)
    return ssim_share * dissimilarity(first, second) + (1 - ssim_share) * difference


def dissimilarity(first: Tensor, second: Tensor) -> Tensor:
    """(1 − SSIM) / 2 over 3x3 neighbourhoods: two `(B, C, H, W)` in 0–1 to `(B, H, W)`."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)

    c1, c2 = 0.01**2, 0.03**2
    m1, m2 = mean(first), mean(second)
    v1, v2 = mean(first**2) - m1**2, mean(second**2) - m2**2
    covariance = mean(first * second) - m1 * m2
    similarity = ((2 * m1 * m2 + c1) * (2 * covariance + c2)) / (
        (m1**2 + m2**2 + c1) * (v1 + v2 + c2)
    )
    return ((1 - similarity) / 2).clamp(0, 1).mean(1)


def reprojection_loss(
    target: Tensor,
    synthesized: Sequence[Tensor],
    sources: Sequence[Tensor],
    ssim_share: float = 0.85,
) -> Tensor:
    """The least error of each pixel among the views (Eq. 4), auto-masked (Eq. 5), and its mean.

    A pixel whose unchanged source fits better than any synthesized view tells nothing: it stands
    still relative to the camera, or has no texture. It counts with that error, which has no
    gradient.

    Args:
        target: `(B, 3, H, W)`, 0–1.
        synthesized, sources: of each other view, the same.

    Returns:
        `(B,)`.
    """
    unchanged = [photometric_error(source, target, ssim_share) for source in sources]
    # Equal errors are no reason to take the unchanged view: noise breaks the tie.
    unchanged = [error + 1e-5 * torch.rand_like(error) for error in unchanged]
    made = [photometric_error(view, target, ssim_share) for view in synthesized]
    return torch.stack([*unchanged, *made]).amin(0).mean((1, 2))


def smoothness(depth: Tensor, image: Tensor) -> Tensor:
    """Slope of the inverse depth, by its mean, where the image has none (Eq. 3).

    Args:
        depth: `(B, H, W)`, positive.
        image: `(B, 3, H, W)`, 0–1.

    Returns:
        `(B,)`.
    """
    inverse = 1 / depth
    inverse = inverse / (inverse.mean((1, 2), keepdim=True) + 1e-7)

    def along(dim: int) -> Tensor:
        slope = inverse.diff(dim=dim - 1).abs()
        return (slope * torch.exp(-image.diff(dim=dim).abs().mean(1))).mean((1, 2))

    return along(3) + along(2)
