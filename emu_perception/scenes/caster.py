"""Ray casting of primitives: each is tried only on the pixels of its screen rectangle.

Pairs (primitive, pixel) are laid out flat in chunks, near ones first, intersected together
and resolved in a z-buffer. The same code serves perspective and orthographic (shadow) views.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from emu_perception.scenes import noise
from emu_perception.scenes.intersect import INTERSECT, TAPERED
from emu_perception.scenes.primitives import (
    AXES,
    CENTRE,
    CUTOUT,
    HALF,
    PARAM,
    SEED,
    SHAPE,
    TAPER,
    Cutout,
    Shape,
)

_NEAR = 0.15
_CORNERS = torch.tensor(list(product((-1.0, 1.0), repeat=3)))
_EDGES = torch.tensor(
    [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]
)
Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class View:
    """Rays of a `(height, width)` image, as affine functions of the pixel (u, v).

    Perspective: the origin is fixed and the direction has unit length along the optical axis, so
    a ray's parameter is the depth. Orthographic: the direction is fixed and the origin moves.
    `rotation` (3, 3) has the camera's right, down and forward axes as columns.
    """

    origin: Tensor
    rotation: Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    perspective: bool = True

    def camera(self, points: Tensor) -> Tensor:
        """World points `(..., 3)` in the camera's frame."""
        return (points - self.origin) @ self.rotation

    def pixels(self, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row of points in the camera's frame."""
        scale = 1 / camera[..., 2].clamp(min=1e-6) if self.perspective else 1.0
        return (
            camera[..., 0] * scale * self.fx + self.cx,
            camera[..., 1] * scale * self.fy + self.cy,
        )

    def lens(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Camera x and y of pixels, at unit depth (perspective) or as they are (orthographic)."""
        return (u - self.cx) / self.fx, (v - self.cy) / self.fy

    def grid(self) -> tuple[Tensor, Tensor]:
        """Lens coordinates x and y of all pixels, `(height * width,)` row by row."""
        device = self.origin.device
        u = torch.arange(self.width, device=device, dtype=torch.float32)
        v = torch.arange(self.height, device=device, dtype=torch.float32)
        x, y = self.lens(u, v)
        return x.repeat(self.height), y.repeat_interleave(self.width)

    def directions(self, x: Tensor, y: Tensor) -> Vector:
        """World direction of the rays at lens coordinates."""
        r = self.rotation
        if not self.perspective:
            one = torch.ones_like(x)
            return one * r[0, 2], one * r[1, 2], one * r[2, 2]
        return tuple(x * r[i, 0] + y * r[i, 1] + r[i, 2] for i in range(3))  # type: ignore[return-value]

    def points(self, x: Tensor, y: Tensor, depth: Tensor) -> Vector:
        """World points at lens coordinates and a depth."""
        if self.perspective:
            x, y = x * depth, y * depth
        r, o = self.rotation, self.origin
        return tuple(o[i] + x * r[i, 0] + y * r[i, 1] + depth * r[i, 2] for i in range(3))  # type: ignore[return-value]


def local_maps(rows: Tensor) -> Tensor:
    """`(P, 3, 3)` world to unit-shape coordinates (without the translation)."""
    return rows[:, AXES].reshape(-1, 3, 3) / rows[:, HALF, None]


def _rectangles(rows: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """`(P, 4)` float left, right, top, bottom (pixel centres within) and `(P,)` nearest depth."""
    half = rows[:, None, HALF] * _CORNERS.to(rows)
    corners = rows[:, None, CENTRE] + half @ rows[:, AXES].reshape(-1, 3, 3)
    camera = view.camera(corners)
    nearest = camera[..., 2].amin(1)
    u, v = view.pixels(camera)
    box = torch.stack([u.amin(1), u.amax(1), v.amin(1), v.amax(1)], dim=1)
    if view.perspective:
        crossing = (nearest < _NEAR) & (camera[..., 2].amax(1) > _NEAR)
        if crossing.any():
            box[crossing] = _clipped(camera[crossing], view)
        box[camera[..., 2].amax(1) <= _NEAR] = -1e6
        round_ = (rows[:, SHAPE] == Shape.ELLIPSOID) & ~crossing
        if round_.any():
            box[round_] = _ellipsoid_bounds(rows[round_], view, box[round_])
    return box, nearest


def _clipped(camera: Tensor, view: View) -> Tensor:
    """Screen bounds of boxes `(P, 8, 3)` cut at the near plane."""
    a, b = camera[:, _EDGES[:, 0]], camera[:, _EDGES[:, 1]]
    za, zb = a[..., 2:], b[..., 2:]
    t = ((_NEAR - za) / torch.where(zb == za, 1e-9, zb - za)).clamp(0, 1)
    cut = torch.where((za < _NEAR) != (zb < _NEAR), a + t * (b - a), torch.nan)
    points = torch.cat([torch.where(camera[..., 2:] >= _NEAR, camera, torch.nan), cut], dim=1)
    u, v = view.pixels(points)
    low, high = torch.inf, -torch.inf
    return torch.stack(
        [
            u.nan_to_num(low).amin(1),
            u.nan_to_num(high).amax(1),
            v.nan_to_num(low).amin(1),
            v.nan_to_num(high).amax(1),
        ],
        dim=1,
    )


def _ellipsoid_bounds(rows: Tensor, view: View, box: Tensor) -> Tensor:
    """Exact screen bounds: the planes through the eye tangent to each ellipsoid."""
    centre = view.camera(rows[:, CENTRE])
    spread = (rows[:, AXES].reshape(-1, 3, 3) * rows[:, HALF, None]) @ view.rotation
    sigma = spread.transpose(1, 2) @ spread
    a = centre[:, 2] ** 2 - sigma[:, 2, 2]
    result = []
    for i, (focal, offset) in enumerate(((view.fx, view.cx), (view.fy, view.cy))):
        b = centre[:, i] * centre[:, 2] - sigma[:, i, 2]
        c = centre[:, i] ** 2 - sigma[:, i, i]
        root = (b * b - a * c).clamp(min=0).sqrt()
        result += [(b - root) / a * focal + offset, (b + root) / a * focal + offset]
    return torch.where((a > 1e-3)[:, None], torch.stack(result, dim=1), box)


def _solid(
    cutout: Cutout,
    view: View,
    rows: Tensor,
    which: Tensor,
    facing: Tensor,
    x: Tensor,
    y: Tensor,
    depth: Tensor,
) -> Tensor:
    """Which hits `(N,)` fall on the surface and not in one of its holes."""
    point = view.points(x, y, depth)
    if cutout == Cutout.FOLIAGE:
        columns = (PARAM.start, PARAM.start + 1, SEED)
        fine, sparse, seed = (rows[:, c].contiguous().index_select(0, which) for c in columns)
        coarse = noise.volume(*(p * (fine * 0.23) + seed for p in point))
        cover = noise.volume(*(p * fine for p in point)) * 0.55 + coarse * 0.45
        # Fewer leaves where one looks along the surface: crowns have ragged outlines.
        return cover > sparse + 0.4 * (1 - facing) ** 2
    mine = rows.index_select(0, which)
    offset = torch.stack(point, dim=1) - mine[:, CENTRE]
    local = (mine[:, AXES].reshape(-1, 3, 3) @ offset[:, :, None])[:, :, 0]
    unit = local / mine[:, HALF]
    if cutout == Cutout.RAILING:  # vertical bars at a pitch, rails at top and bottom
        pitch, bar = mine[:, PARAM.start], mine[:, PARAM.start + 1]
        return ((local[:, 0] / pitch).remainder(1.0) < bar) | (
            unit[:, 2].abs() > mine[:, PARAM.start + 2]
        )
    if cutout == Cutout.RING:  # tyre, rim and a few spokes
        radius = unit[:, :2].norm(dim=1)
        turn = torch.atan2(unit[:, 1], unit[:, 0])
        return (radius > 0.86) | (radius < 0.12) | ((turn * 5.1).sin().abs() < 0.07)
    return noise.twigs(unit[:, 0], unit[:, 2], mine[:, SEED])


def cast(
    rows: Tensor, view: View, depth: Tensor | None = None, *, chunk: int = 1 << 17
) -> tuple[Tensor, Tensor]:
    """Nearest hit of every pixel: depth `(H, W)` (inf: none) and row index `(H, W)` (-1: none).

    `depth` holds surfaces already there, such as the ground. It is not changed.
    """
    device, shape = rows.device, (view.height, view.width)
    buffer = torch.full(shape, torch.inf, device=device) if depth is None else depth.clone()
    buffer = buffer.flatten()
    owner = torch.full((view.height * view.width,), -1, dtype=torch.int32, device=device)
    if len(rows) == 0:
        return buffer.view(shape), owner.view(shape)
    box, nearest = _rectangles(rows, view)
    left, top = box[:, 0].ceil().clamp(0, view.width), box[:, 2].ceil().clamp(0, view.height)
    wide = (box[:, 1].floor().clamp(-1, view.width - 1) - left + 1).clamp(min=0)
    high = (box[:, 3].floor().clamp(-1, view.height - 1) - top + 1).clamp(min=0)
    count = (wide * high).long()
    maps = local_maps(rows)
    start = torch.einsum("pij,pj->pi", maps, view.origin - rows[:, CENTRE])
    # One contiguous row per coefficient: index_select on those is several times faster than [].
    table = torch.cat(
        [(maps @ view.rotation).flatten(1), start, rows[:, TAPER]], dim=1
    ).T.contiguous()
    left, top, wide, nearest = (c.contiguous() for c in (left, top, wide, nearest))
    groups = rows[:, SHAPE].long() * len(Cutout) + rows[:, CUTOUT].long()
    # Solid groups before those with holes: what they hide is then never looked at.
    present = sorted(groups.unique().tolist(), key=lambda g: (g % len(Cutout) > 0, g))
    for group in present:
        member = ((groups == group) & (count > 0)).nonzero()[:, 0]
        member = member[nearest[member].argsort(stable=True)]
        kind, cutout = Shape(group // len(Cutout)), Cutout(group % len(Cutout))
        for part in _chunks(member, count, chunk):
            which = part.repeat_interleave(count[part])
            first = count[part].cumsum(0) - count[part]
            serial = torch.arange(len(which), device=device)
            serial = (serial - first.repeat_interleave(count[part])).float()
            w = wide.index_select(0, which)
            row = ((serial + 0.5) / w).floor()
            column = serial - row * w + left.index_select(0, which)
            row += top.index_select(0, which)
            pixel = (row * view.width + column).long()
            seen = buffer.index_select(0, pixel)
            ahead = (seen > nearest.index_select(0, which)).nonzero()[:, 0]
            if len(ahead) == 0:
                continue
            which, pixel, row, column, seen = (
                c.index_select(0, ahead) for c in (which, pixel, row, column, seen)
            )
            x, y = view.lens(column, row)
            m = [c.index_select(0, which) for c in table[:12]]
            o, d = m[9:], [m[2], m[5], m[8]]
            if view.perspective:
                d = [m[i] * x + m[i + 1] * y + m[i + 2] for i in (0, 3, 6)]
            else:
                o = [m[9 + i // 3] + m[i] * x + m[i + 1] * y for i in (0, 3, 6)]
            taper = [c.index_select(0, which) for c in table[12:]] if kind in TAPERED else []
            near, far = INTERSECT[kind](o, d, taper)
            for t in (near, far) if cutout != Cutout.NONE else (near,):
                hit = ((t > _NEAR) & (t < seen) & (near < far)).nonzero()[:, 0]
                if len(hit) == 0:
                    continue
                if cutout != Cutout.NONE:
                    chord = (far - near) * 0.5 * (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]).sqrt()
                    at = [c.index_select(0, hit) for c in (chord, x, y, t)]
                    hit = hit[_solid(cutout, view, rows, which.index_select(0, hit), *at)]
                _resolve(buffer, owner, *(c.index_select(0, hit) for c in (pixel, t, which)))
    return buffer.view(shape), owner.view(shape)


def _chunks(member: Tensor, count: Tensor, size: int) -> list[Tensor]:
    """Consecutive parts of `member` with about `size` pairs each."""
    if len(member) == 0:
        return []
    index = (count[member].cumsum(0) - 1) // size
    return [p for p in torch.split(member, torch.bincount(index).tolist()) if len(p)]


def _resolve(buffer: Tensor, owner: Tensor, pixel: Tensor, depth: Tensor, which: Tensor) -> None:
    buffer.scatter_reduce_(0, pixel, depth, "amin")
    won = (depth == buffer.index_select(0, pixel)).nonzero()[:, 0]
    pixel, which = pixel.index_select(0, won), which.index_select(0, won).int()
    owner.index_fill_(0, pixel, -1)  # ties go to the last row, on every device
    owner.scatter_reduce_(0, pixel, which, "amax")
