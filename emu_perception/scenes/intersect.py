"""Intersections of rays with the unit shapes.

Each function takes origins and directions in the shape's own coordinates (three tensors each) and
its tapers, and returns the ray parameters at entry and exit; a miss has entry >= exit or NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from emu_perception.scenes.primitives import Shape

Intersection = Callable[[list[Tensor], list[Tensor], list[Tensor]], tuple[Tensor, Tensor]]


def _box(o: list[Tensor], d: list[Tensor], taper: list[Tensor]) -> tuple[Tensor, Tensor]:
    near, far = _slab(o[0], d[0])
    for axis in (1, 2):
        first, last = _slab(o[axis], d[axis])
        near, far = torch.maximum(near, first), torch.minimum(far, last)
    return near, far


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(d.abs() < 1e-9, 1e-9, d)
    middle, reach = -o * inverse, inverse.abs()
    return middle - reach, middle + reach


def _frustum(o: list[Tensor], d: list[Tensor], taper: list[Tensor]) -> tuple[Tensor, Tensor]:
    near, far = _slab(o[2], d[2])
    for axis in range(2):
        k = taper[axis] * 0.5
        for sign in (1.0, -1.0):
            distance = 1 - k - (sign * o[axis] + k * o[2])
            slope = sign * d[axis] + k * d[2]
            t = distance / torch.where(slope.abs() < 1e-9, 1e-9, slope)
            near = torch.where(slope < 0, torch.maximum(near, t), near)
            far = torch.where(slope < 0, far, torch.minimum(far, t))
    return near, far


def _ellipsoid(o: list[Tensor], d: list[Tensor], taper: list[Tensor]) -> tuple[Tensor, Tensor]:
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = (o[0] * d[0] + o[1] * d[1] + o[2] * d[2]) / a
    c = (o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1) / a
    root = (b * b - c).sqrt()  # NaN where missed: no comparison holds
    return -b - root, root - b


def _cone(o: list[Tensor], d: list[Tensor], taper: list[Tensor]) -> tuple[Tensor, Tensor]:
    k = taper[0] * 0.5
    r, slope = 1 - k - k * o[2], -k * d[2]
    a = (d[0] * d[0] + d[1] * d[1] - slope * slope).clamp(min=1e-9)
    b = (o[0] * d[0] + o[1] * d[1] - r * slope) / a
    root = (b * b - (o[0] * o[0] + o[1] * o[1] - r * r) / a).sqrt()
    bottom, top = _slab(o[2], d[2])
    return torch.maximum(-b - root, bottom), torch.minimum(root - b, top)


TAPERED = (Shape.FRUSTUM, Shape.CONE)
INTERSECT: dict[Shape, Intersection] = {
    Shape.BOX: _box,
    Shape.FRUSTUM: _frustum,
    Shape.ELLIPSOID: _ellipsoid,
    Shape.CONE: _cone,
}
