"""The road as a plane under the camera: what labels of the road teach about depth.

A plane n·P = h in the camera's frame makes the inverse depth of pixel rays (x, y, 1) linear:
1 / d = q·(x, y, 1) with q = n / h. So a plane can be fitted without the camera's focal length; with
it, q tells how high and how level the camera is over the road. Height alone would not do: depth
that grows towards the bottom of the image lies on a plane as well, overhead.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.rays import pixel_rays

MIN_PIXELS = 200
"""Fewest pixels of road for fitting its plane."""
_RIDGE = 1e-6


class GroundPlane(NamedTuple):
    """Indices of the images with enough road, in their order."""

    images: Tensor
    """`(N,)` int64: which of the batch these are."""
    residual: Tensor
    """`(N,)` mean |ln depth - ln depth of the plane|; 0 on a flat road."""
    inverse: Tensor
    """`(N, 3)` q, 1/m, for rays of a known camera: (0, 1/h, 0) under a level one h metres above."""


def fit_ground_plane(depth: Tensor, road: Tensor, rays: Tensor) -> GroundPlane:
    """Planes through the predicted depth of the road.

    Relative errors of depth are minimised, so that the far end counts no more than the near one.
    The residual's gradient moves the depth to the plane, not the plane to the depth; that of the
    plane moves both.

    Args:
        depth: `(B, H, W)` metres, any positive scale.
        road: bool `(B, H, W)`.
        rays: `(B, H, W, 3)`, of `pixel_rays`.
    """
    use = road & (depth > 0)
    images = torch.nonzero(use.flatten(1).sum(1) >= MIN_PIXELS)[:, 0]
    residuals, planes = [], []
    for image in images.tolist():
        chosen = use[image]
        d, ray = depth[image][chosen].double(), rays[image][chosen].double()
        rows = ray * d[:, None].detach()  # d (q·ray) = 1
        normal = rows.T @ rows / len(d)
        normal = normal + _RIDGE * torch.eye(3, dtype=d.dtype, device=d.device)
        # As a function of the depth: the weights are constants, the inverse depth is not.
        target = (rows * (d.detach() / d)[:, None]).sum(0) / len(d)
        plane = torch.linalg.solve(normal, target)
        inverse = (ray @ plane.detach()).clamp_min(1e-4)
        residuals.append((torch.log(d) + torch.log(inverse)).abs().mean())
        planes.append(plane)
    if not planes:
        return GroundPlane(images, depth.new_zeros(0), depth.new_zeros(0, 3))
    stacked = torch.stack(residuals), torch.stack(planes)
    return GroundPlane(images, *(each.to(depth.dtype) for each in stacked))


def ground_loss(
    depth: Tensor,
    road: Tensor,
    intrinsics: Tensor,
    known: Tensor,
    camera_height: tuple[float, float] | None,
    camera_tilt: float,
) -> Tensor:
    """How far off a plane the road is, and how far off the camera's height and level.

    Args:
        depth: `(B, H, W)` metres.
        road: bool `(B, H, W)`.
        intrinsics: `(B, 4)` fx, fy, cx, cy in pixels.
        known: bool `(B,)`, where they are.
        camera_height: metres above the road and their standard deviation; None: not used.
        camera_tilt: standard deviation of the camera's roll and pitch, degrees.

    Returns:
        Scalar, averaged over the images with enough road; 0 without any.
    """
    height, width = depth.shape[-2:]
    unit = depth.new_tensor([[1.0, 1.0, 0.0, 0.0]])  # any rays will do for the plane itself
    camera = torch.where(known[:, None], intrinsics.nan_to_num(0.0), unit)
    found = fit_ground_plane(depth, road, pixel_rays(camera, height, width))
    loss = found.residual.sum()
    if camera_height is not None:
        expected, deviation = camera_height
        tilt = math.tan(math.radians(camera_tilt))
        level = found.inverse.new_tensor([0.0, 1.0, 0.0])
        spread = found.inverse.new_tensor([tilt, deviation / expected, tilt])
        off = (expected * found.inverse - level) / spread
        error = F.huber_loss(off, torch.zeros_like(off), reduction="none")
        loss = loss + (error.sum(1) * known[found.images]).sum()
    return loss / max(1, len(found.images))
