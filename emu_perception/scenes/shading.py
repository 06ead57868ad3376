"""Light and colour of what the rays have met."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emu_perception.scenes import noise
from emu_perception.scenes.caster import View
from emu_perception.scenes.lighting import (
    illuminate,
    shadow_map,
    sky,
    visibility,
)
from emu_perception.scenes.look import Look, Samples
from emu_perception.scenes.materials import look_of
from emu_perception.scenes.paving import paving
from emu_perception.scenes.primitives import (
    AXES,
    CENTRE,
    HALF,
    INSTANCE,
    LABEL,
    MATERIAL,
    ODD,
    PARAM,
    SHADE,
    SHAPE,
    TAPER,
    Material,
    Shape,
)
from emu_perception.scenes.scene import Scene


def _surfaces(rows: Tensor, view: View, points: Tensor, depth: Tensor) -> tuple[Tensor, Samples]:
    """World normals `(N, 3)` and texture samples of hits on `rows` (one per point)."""
    axes = rows[:, AXES].reshape(-1, 3, 3)
    local = torch.einsum("nij,nj->ni", axes, points - rows[:, CENTRE])
    unit = local / rows[:, HALF]
    shape = rows[:, SHAPE]
    size = unit.abs()
    box = torch.nn.functional.one_hot(size.argmax(1), 3) * unit.sign()
    k = rows[:, TAPER] * 0.5
    reach = 1 - k * (unit[:, 2:] + 1)
    excess = torch.cat([size[:, :2] - reach, size[:, 2:] - 1], dim=1)
    face = torch.nn.functional.one_hot(excess.argmax(1), 3).to(unit)
    slanted = face * unit.sign()
    slanted[:, 2] += (face[:, :2] * k).sum(1)
    capped = (size[:, 2] - 1).abs() < 2e-3 + 0 * size[:, 2]
    radial = torch.stack([unit[:, 0], unit[:, 1], k[:, 0] * reach[:, 0]], dim=1)
    radius = unit[:, :2].norm(dim=1)
    on_side = (radius - reach[:, 0]).abs() < (size[:, 2] - 1).abs() + 1e-3
    cone = torch.where(
        (capped & ~on_side)[:, None],
        torch.stack([0 * radius, 0 * radius, unit[:, 2].sign()], 1),
        radial,
    )
    normal = unit
    for kind, value in ((Shape.BOX, box), (Shape.FRUSTUM, slanted), (Shape.CONE, cone)):
        normal = torch.where((shape == kind)[:, None], value, normal)
    normal = torch.einsum("nji,nj->ni", axes, normal / rows[:, HALF])
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-9)
    rays = points - view.origin
    normal = torch.where((normal * rays).sum(1, keepdim=True) > 0, -normal, normal)
    footprint = depth / view.fx
    return normal, Samples(rows, local, unit, points, footprint)


def _soften(normals: Tensor, samples: Samples) -> Tensor:
    """Shading normals: sheet metal bends at its edges, foliage points every way."""
    rows, unit = samples.rows, samples.unit
    axes = rows[:, AXES].reshape(-1, 3, 3)
    kind = rows[:, MATERIAL]
    metal = (kind == Material.PAINT) | (kind == Material.CABIN)
    bent = torch.einsum(
        "nji,nj->ni", axes, unit.clamp(-1, 1) ** 7 * torch.tensor([1.0, 0.6, 0.8]).to(unit)
    )
    normals = torch.where(metal[:, None], normals + 0.55 * bent, normals)
    leaf = kind == Material.FOLIAGE
    which = leaf.nonzero()[:, 0]
    if len(which):
        cell = samples.point[which] * samples.rows[which, PARAM.start, None]
        jitter = torch.stack([noise.volume(*(cell + 7.0 * k).T) for k in range(1, 4)], dim=1) - 0.5
        up = torch.tensor([0, 0, 0.35]).to(unit)
        normals[which] = normals[which] * 0.8 + 1.1 * jitter + up
    return normals / normals.norm(dim=1, keepdim=True)


@dataclass
class Buffers:
    """Flat per-pixel results."""

    radiance: Tensor
    normals: Tensor
    labels: Tensor
    instances: Tensor
    odd: Tensor


def shade(
    scene: Scene, rows: Tensor, view: View, depth: Tensor, owner: Tensor, ground: tuple | None
) -> Buffers:
    device, count = rows.device, depth.numel()
    x, y = view.grid()
    rays = torch.stack(view.directions(x, y), dim=1)
    points = torch.where(depth[:, None] < torch.inf, view.origin + rays * depth[:, None], 0.0)
    buffers = Buffers(
        torch.zeros((count, 3), device=device),
        torch.zeros((count, 3), device=device),
        torch.full((count,), 255, dtype=torch.uint8, device=device),
        torch.full((count,), -1, dtype=torch.int32, device=device),
        torch.zeros(count, dtype=torch.bool, device=device),
    )
    look = Look.matte(torch.zeros((count, 3), device=device))
    openness = torch.ones(count, device=device)
    shading = torch.zeros((count, 3), device=device)
    hit = (owner >= 0).nonzero()[:, 0]
    if len(hit):
        mine = rows.index_select(0, owner.index_select(0, hit))
        normals, samples = _surfaces(
            mine, view, points.index_select(0, hit), depth.index_select(0, hit)
        )
        found = look_of(samples)
        look.albedo[hit], look.gloss[hit], look.glow[hit] = found.albedo, found.gloss, found.glow
        buffers.normals[hit], shading[hit] = normals, _soften(normals, samples)
        buffers.labels[hit] = mine[:, LABEL].to(torch.uint8)
        buffers.instances[hit] = mine[:, INSTANCE].int()
        buffers.odd[hit] = mine[:, ODD] > 0.5
        openness[hit] = mine[:, SHADE]
    if ground is not None and scene.street is not None:
        distance, normals = ground
        bare = ((owner < 0) & (depth < torch.inf)).nonzero()[:, 0]
        s, t = scene.street.layout.street(points[bare, 0], points[bare, 1])
        footprint = depth[bare] / view.fx
        slant = (-(rays[bare] * normals[bare]).sum(1) / rays[bare].norm(dim=1)).clamp(min=0.02)
        found, region = paving(
            scene.street.paving,
            scene.street.layout,
            s,
            t,
            distance[bare],
            footprint,
            footprint / slant,
        )
        look.albedo[bare], look.gloss[bare] = found.albedo.clamp(0.003, 0.95), found.gloss
        buffers.normals[bare] = shading[bare] = normals[bare]
        names = torch.tensor(scene.street.labels, dtype=torch.uint8, device=device)
        buffers.labels[bare] = names[region]
        buffers.instances[bare] = -2 - region.int()
    seen = (depth < torch.inf).nonzero()[:, 0]
    lit = torch.ones(count, device=device)
    solid = rows[rows[:, MATERIAL] != Material.GLOW]
    low = solid[solid[:, SHADE] < 1.0]  # what stands free, unlike walls
    forward = view.rotation[:, 2] * torch.tensor([1.0, 1.0, 0.0], device=device)
    outdoors = scene.street is not None
    target = view.origin + (20.0 if outdoors else 2.0) * forward / forward.norm().clamp(min=0.1)
    shifted = points[seen] + (0.06 if outdoors else 0.02) * buffers.normals[seen]
    light = scene.light
    if max(light.sun) > 0:
        reach, casters, bias = (40.0, solid, 0.25) if outdoors else (4.5, low, 0.03)
        sun_view, sun_depth = shadow_map(
            casters, target, light.vector("sun_direction", device), reach, 352
        )
        lit[seen] = visibility(sun_view, sun_depth, shifted, bias)
    # Cars, people and furniture hide the sky (the ceiling) from what is beneath.
    above = low[low[:, MATERIAL] != Material.FOLIAGE]
    up = torch.tensor([0.0, 0.0, 1.0], device=device)
    sky_view, sky_depth = shadow_map(above, target, up, 32.0 if outdoors else 4.5, 256)
    openness[seen] *= 0.25 + 0.75 * visibility(
        sky_view, sky_depth, shifted, 0.1, blur=5 if outdoors else 11
    )
    radiance = illuminate(
        light,
        Look(look.albedo[seen], look.gloss[seen], look.glow[seen]),
        shading[seen],
        rays[seen],
        depth[seen],
        lit[seen],
        openness[seen],
    )
    buffers.radiance[seen] = radiance
    empty = (depth == torch.inf).nonzero()[:, 0]
    if len(empty):
        buffers.radiance[empty] = sky(light, rays[empty])
        if scene.street is not None:
            buffers.labels[empty] = scene.street.sky
    return buffers
