"""The road as a plane under the camera: what labels of the road teach about depth.

A plane n·P = h in the camera's frame makes the inverse depth of pixel rays (x, y, 1) linear:
1 / d = q·(x, y, 1) with q = n / h. So a plane can be fitted without the camera's focal length; with
it, q tells how high and how level the camera is over the road. Height alone would not do: depth
that grows towards the bottom of the image lies on a plane as well, overhead.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
