"""A scene, seen by a camera."""

from __future__ import annotations

import torch
from torch import Tensor

from emu_perception.scenes.caster import cast
from emu_perception.scenes.frame import SceneFrame
from emu_perception.scenes.lighting import Light
from emu_perception.scenes.scene import (
    Camera,
    Hood,
    Scene,
    view_of,
)
from emu_perception.scenes.sensor import expose
from emu_perception.scenes.shading import shade


def _cover_with_hood(hood: Hood, radiance: Tensor, light: Light) -> Tensor:
    """Paints the ego vehicle into `radiance` `(H, W, 3)`; the mask of what it covers."""
    height, width = radiance.shape[:2]
    x = torch.linspace(-1, 1, width, device=radiance.device)
    y = torch.linspace(1, 0, height, device=radiance.device)[:, None]
    top = hood.height + hood.slope * x - hood.bulge * x * x
    mask = y < top
    inside = ((top - y) / max(hood.height, 0.02)).clamp(0, 1)[..., None]
    mirror = light.vector("horizon", radiance.device) * (0.22 * (1 - inside) ** 2 + 0.02)
    body = torch.tensor(hood.color, device=radiance.device) * light.vector(
        "ambient", radiance.device
    )
    wave = 1 + 0.4 * torch.sin(9 * x + 14 * y)[..., None] * inside
    radiance[mask] = (mirror * wave + body)[mask]
    return mask


@torch.no_grad()
def render(
    scene: Scene, camera: Camera, seed: int, device: torch.device | str = "cpu"
) -> SceneFrame:
    """One image of a scene; `seed` is for the sensor's noise only."""
    device = torch.device(device)
    view = view_of(camera, device)
    shape = (view.height, view.width)
    rows = torch.from_numpy(scene.rows).to(device)
    ground, start = None, None
    if scene.street is not None:
        x, y = view.grid()
        start, distance, normals = scene.street.layout.cast(view, x, y)
        ground, start = (distance, normals), start.view(shape)
    depth, owner = cast(rows, view, start, chunk=1 << 17 if device.type == "cpu" else 1 << 22)
    buffers = shade(scene, rows, view, depth.flatten(), owner.flatten(), ground)
    radiance = buffers.radiance.view(*shape, 3)
    labels, instances = buffers.labels.view(shape), buffers.instances.view(shape)
    depth = torch.where(depth < torch.inf, depth, 0.0)
    normals = (buffers.normals @ view.rotation).view(*shape, 3)
    odd = buffers.odd.view(shape)
    if camera.hood is not None:
        mask = _cover_with_hood(camera.hood, radiance, scene.light)
        labels[mask], depth[mask], normals[mask], instances[mask], odd[mask] = (
            255,
            0.0,
            0.0,
            -9,
            False,
        )
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
