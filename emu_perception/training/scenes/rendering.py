"""A scene, seen by a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emu_perception.camera import Intrinsics
from emu_perception.training.scenes import noise
from emu_perception.training.scenes.caster import View, cast, local_maps
from emu_perception.training.scenes.frame import SceneFrame
from emu_perception.training.scenes.ground import Layout
from emu_perception.training.scenes.lighting import Light, illuminate, shadow_map, sky, visibility
from emu_perception.training.scenes.materials import Look, Samples, look_of
from emu_perception.training.scenes.paving import Paving, paving
from emu_perception.training.scenes.primitives import (
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
    Rows,
    Shape,
)
from emu_perception.training.scenes.sensor import Sensor, expose


@dataclass(frozen=True)
class Street:
    """Ground of a scene and the label ids of its regions (road, pavement, grass) and the sky."""

    layout: Layout
    paving: Paving
    labels: tuple[int, int, int]
    sky: int


@dataclass(frozen=True)
class Hood:
    """The ego vehicle at the image's lower edge: heights as shares of the image's."""

    height: float
    slope: float
    bulge: float
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything there is to see."""

    rows: Rows
    light: Light
    street: Street | None = None


@dataclass(frozen=True)
class Camera:
    """Where and how one looks; `pose` is the 4x4 camera-to-world matrix."""

    intrinsics: Intrinsics
    pose: np.ndarray
    sensor: Sensor
    hood: Hood | None = None
    gain: float | None = None


def camera_pose(position: tuple[float, float, float], yaw: float, pitch: float, roll: float) -> np.ndarray:
    """4x4 camera-to-world: yaw clockwise from +y seen from above, pitch up, roll clockwise; radians."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    forward = np.array([sy * cp, cy * cp, sp])
    right = np.array([cy, -sy, 0.0])
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = cr * right + sr * down
    pose[:3, 1] = cr * down - sr * right
    pose[:3, 2] = forward
    pose[:3, 3] = position
    return pose


def view_of(camera: Camera, device: torch.device) -> View:
    """The rays of a camera."""
    pose = torch.tensor(camera.pose, dtype=torch.float32, device=device)
    k = camera.intrinsics
    return View(pose[:3, 3], pose[:3, :3], k.fx, k.fy, k.cx, k.cy, k.width, k.height)


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
    cone = torch.where((capped & ~on_side)[:, None], torch.stack([0 * radius, 0 * radius, unit[:, 2].sign()], 1), radial)
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
    bent = torch.einsum("nji,nj->ni", axes, unit.clamp(-1, 1) ** 7 * torch.tensor([1.0, 0.6, 0.8]).to(unit))
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
class _Buffers:
    """Flat per-pixel results."""

    radiance: Tensor
    normals: Tensor
    labels: Tensor
    instances: Tensor
    odd: Tensor


def _shade(scene: Scene, rows: Tensor, view: View, depth: Tensor, owner: Tensor, ground: tuple | None) -> _Buffers:
    device, count = rows.device, depth.numel()
    u = torch.arange(view.width, device=device, dtype=torch.float32)
    v = torch.arange(view.height, device=device, dtype=torch.float32)
    x, y = view.lens(u, v)
    x, y = x.repeat(view.height), y.repeat_interleave(view.width)
    rays = torch.stack(view.directions(x, y), dim=1)
    points = torch.where(depth[:, None] < torch.inf, view.origin + rays * depth[:, None], 0.0)
    buffers = _Buffers(
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
        normals, samples = _surfaces(mine, view, points.index_select(0, hit), depth.index_select(0, hit))
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
            scene.street.paving, scene.street.layout, s, t, distance[bare], footprint, footprint / slant
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
        sun_view, sun_depth = shadow_map(casters, target, light.vector("sun_direction", device), reach, 352)
        lit[seen] = visibility(sun_view, sun_depth, shifted, bias)
    # Cars, people and furniture hide the sky (the ceiling) from what is beneath.
    above = low[low[:, MATERIAL] != Material.FOLIAGE]
    up = torch.tensor([0.0, 0.0, 1.0], device=device)
    sky_view, sky_depth = shadow_map(above, target, up, 32.0 if outdoors else 4.5, 256)
    openness[seen] *= 0.25 + 0.75 * visibility(sky_view, sky_depth, shifted, 0.1, blur=5 if outdoors else 11)
    radiance = illuminate(
        light, Look(look.albedo[seen], look.gloss[seen], look.glow[seen]), shading[seen], rays[seen],
        depth[seen], lit[seen], openness[seen],
    )
    buffers.radiance[seen] = radiance
    empty = (depth == torch.inf).nonzero()[:, 0]
    if len(empty):
        buffers.radiance[empty] = sky(light, rays[empty])
        if scene.street is not None:
            buffers.labels[empty] = scene.street.sky
    return buffers


def _cover_with_hood(hood: Hood, radiance: Tensor, light: Light) -> Tensor:
    """Paints the ego vehicle into `radiance` `(H, W, 3)`; the mask of what it covers."""
    height, width = radiance.shape[:2]
    x = torch.linspace(-1, 1, width, device=radiance.device)
    y = torch.linspace(1, 0, height, device=radiance.device)[:, None]
    top = hood.height + hood.slope * x - hood.bulge * x * x
    mask = y < top
    inside = ((top - y) / max(hood.height, 0.02)).clamp(0, 1)[..., None]
    mirror = light.vector("horizon", radiance.device) * (0.22 * (1 - inside) ** 2 + 0.02)
    body = torch.tensor(hood.color, device=radiance.device) * light.vector("ambient", radiance.device)
    wave = 1 + 0.4 * torch.sin(9 * x + 14 * y)[..., None] * inside
    radiance[mask] = (mirror * wave + body)[mask]
    return mask


@torch.no_grad()
def render(scene: Scene, camera: Camera, seed: int, device: torch.device | str = "cpu") -> SceneFrame:
    """One image of a scene; `seed` is for the sensor's noise only."""
    device = torch.device(device)
    view = view_of(camera, device)
    shape = (view.height, view.width)
    rows = torch.from_numpy(scene.rows).to(device)
    ground, start = None, None
    if scene.street is not None:
        u = torch.arange(view.width, device=device, dtype=torch.float32)
        v = torch.arange(view.height, device=device, dtype=torch.float32)
        x, y = view.lens(u, v)
        x, y = x.repeat(view.height), y.repeat_interleave(view.width)
        start, distance, normals = scene.street.layout.cast(view, x, y)
        ground, start = (distance, normals), start.view(shape)
    depth, owner = cast(rows, view, start, chunk=1 << 17 if device.type == "cpu" else 1 << 22)
    buffers = _shade(scene, rows, view, depth.flatten(), owner.flatten(), ground)
    radiance = buffers.radiance.view(*shape, 3)
    labels, instances = buffers.labels.view(shape), buffers.instances.view(shape)
    depth = torch.where(depth < torch.inf, depth, 0.0)
    normals = (buffers.normals @ view.rotation).view(*shape, 3)
    odd = buffers.odd.view(shape)
    if camera.hood is not None:
        mask = _cover_with_hood(camera.hood, radiance, scene.light)
        labels[mask], depth[mask], normals[mask], instances[mask], odd[mask] = 255, 0.0, 0.0, -9, False
    labels[odd] = 255
    key = instances * 256 + labels.int()
    edges = torch.zeros(shape, dtype=torch.bool, device=device)
    across, down = key[:, 1:] != key[:, :-1], key[1:] != key[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    generator = torch.Generator().manual_seed(seed)
    image = expose(radiance, depth == 0, camera.sensor, generator, camera.gain)
    return SceneFrame(
        image,
        labels.cpu().numpy(),
        depth.cpu().numpy(),
        normals.cpu().numpy(),
        edges.cpu().numpy(),
        camera.intrinsics,
        odd.cpu().numpy(),
    )
