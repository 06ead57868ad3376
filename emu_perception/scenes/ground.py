"""The ground of a street: road, kerbs, pavements, verges, side streets, banks, hills and dips.

Street coordinates: s runs along the street's axis, t to its right, both in metres; the street is an
arc of constant curvature through the world's origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emu_perception.scenes.caster import Vector, View

KERB_HEIGHT = 0.12
_FARTHEST = 350.0
_CORNER = 4.0


@dataclass(frozen=True)
class Junction:
    """A side street: its axis at `s`, half width, and side (-1 left, 1 right, 0 both)."""

    s: float
    half_width: float
    side: int


@dataclass(frozen=True)
class Side:
    """Profile of one side from the road's edge outwards."""

    verge: float
    """Width of a grass strip between kerb and pavement, metres."""
    pavement: float
    front: str
    """Surface beyond the pavement: 'paved', 'grass' or 'gravel'."""
    bank_start: float = 1e3
    """Distance from the axis at which the land starts to rise, metres."""
    bank_slope: float = 0.0

    @property
    def width(self) -> float:
        """Kerb to the pavement's outer edge."""
        return self.verge + self.pavement


@dataclass(frozen=True)
class Layout:
    """The street's plan and profile."""

    left: float
    """Distance of the left kerb from the axis, metres, positive."""
    right: float
    curvature: float
    """1/m, positive to the right."""
    profile: float
    """The land's height is profile * y**2."""
    sides: tuple[Side, Side]
    junctions: tuple[Junction, ...]
    kerb: float = KERB_HEIGHT

    def street(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Street coordinates (s, t) of world points."""
        if self.curvature == 0:
            return y, x
        radius = 1 / self.curvature
        sign = float(np.sign(radius))
        distance = torch.hypot(x - radius, y)
        return abs(radius) * torch.atan2(y, sign * (radius - x)), sign * (abs(radius) - distance)

    def world(self, s: float, t: float) -> tuple[float, float, float]:
        """x, y and heading (radians, clockwise from +y) of a place in street coordinates."""
        if self.curvature == 0:
            return t, s, 0.0
        radius, angle = 1 / self.curvature, s * self.curvature
        return (
            radius - (radius - t) * float(np.cos(angle)),
            (radius - t) * float(np.sin(angle)),
            angle,
        )

    def height(self, s: float, t: float) -> float:
        """Height of the land at a place (the road's surface level, kerbs aside)."""
        x, y, _ = self.world(s, t)
        side = self.sides[int(t > 0)]
        return self.profile * y * y + max(0.0, side.bank_slope * (abs(x) - side.bank_start))

    def surface(self, s: float, t: float) -> float:
        """Height to stand on: with the kerb, off the road."""
        on_road = -self.left < t < self.right or any(
            abs(s - j.s) < j.half_width and j.side * t >= 0 for j in self.junctions
        )
        return self.height(s, t) + (0.0 if on_road else self.kerb)

    def road_distance(self, s: Tensor, t: Tensor) -> Tensor:
        """Distance to the road's edge, negative on the road; corners are rounded."""
        result = torch.maximum(t - self.right, -self.left - t)
        for junction in self.junctions:
            arm = (s - junction.s).abs() - junction.half_width
            if junction.side:
                arm = torch.maximum(arm, -junction.side * t)
            near = (_CORNER - (result - arm).abs()).clamp(min=0) / _CORNER
            result = torch.minimum(result, arm) - near * near * _CORNER / 4
        return result

    def _reach(self, view: View, d: Vector, offset: float, slope: float = 0.0) -> Tensor:
        """Depth at which rays meet z = profile y^2 + offset + slope x; inf where they don't."""
        o, p = view.origin, self.profile
        c = float(o[2] - p * o[1] ** 2 - offset - slope * o[0])
        b = d[2] - 2 * p * o[1] * d[1] - slope * d[0]
        a = -p * d[1] ** 2
        root = (b * b - 4 * a * c).sqrt()
        depth = 2 * c / (root - b)  # the nearest crossing from above
        return torch.where((depth > 0) & (depth < _FARTHEST), depth, torch.inf)

    def cast(self, view: View, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Intersect rays at lens coordinates `(N,)` with the ground.

        Returns depth (inf: never), signed distance to the road's edge, and world normals `(N, 3)`.
        """
        d = view.directions(x, y)
        low, high = self._reach(view, d, 0.0), self._reach(view, d, self.kerb)
        low = torch.where(low < torch.inf, low, high)
        met = (high < torch.inf).nonzero()[:, 0]
        edge = []
        for depth in (high, low):
            px, py, _ = view.points(*(c.index_select(0, met) for c in (x, y, depth)))
            away = torch.full_like(x, 50.0)
            edge.append(away.index_copy_(0, met, self.road_distance(*self.street(px, py))))
        d_high, d_low = edge
        face = (d_high < 0) & (d_low >= 0)
        share = (-d_high / (d_low - d_high).clamp(min=1e-4)).clamp(0, 1)
        depth = torch.where(d_high >= 0, high, low)
        depth = torch.where(face, high + share * (low - high), depth)
        distance = torch.where(d_high >= 0, d_high, torch.where(face, 0.0, d_low))
        px, py, _ = view.points(x, y, depth.nan_to_num(posinf=_FARTHEST))
        normals = torch.stack([0 * x, -2 * self.profile * py, torch.ones_like(x)], dim=1)
        tangent = px.sign()
        normals[face] = torch.stack([-tangent, 0 * x, 0.15 + 0 * x], dim=1)[face]
        for side, sign in zip(self.sides, (-1.0, 1.0), strict=True):
            if side.bank_slope > 0:
                slope = side.bank_slope
                bank = self._reach(view, d, self.kerb - slope * side.bank_start, sign * slope)
                px, bank_y, _ = view.points(x, y, bank.nan_to_num(posinf=_FARTHEST))
                # A bank's plane dips below the road on this side of where it starts.
                on = (bank < depth) & (sign * px > side.bank_start)
                depth = torch.where(on, bank, depth)
                distance = torch.where(on, 50.0, distance)
                tilt = torch.stack(
                    [
                        torch.full_like(x, -sign * slope),
                        -2 * self.profile * bank_y,
                        torch.ones_like(x),
                    ],
                    1,
                )
                normals = torch.where(on[:, None], tilt, normals)
        return depth, distance, normals / normals.norm(dim=1, keepdim=True)
