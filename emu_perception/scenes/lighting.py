"""Sun, sky, shadows, reflections and haze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from emu_perception.scenes import noise
from emu_perception.scenes.caster import View, cast
from emu_perception.scenes.look import Look


@dataclass(frozen=True)
class Light:
    """Linear radiance, about 1 for an overcast sky."""

    sun_direction: tuple[float, float, float]
    """Towards the sun, unit length, world."""
    sun: tuple[float, float, float]
    """Irradiance of a surface facing the sun, divided by pi."""
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    ambient: tuple[float, float, float]
    """Irradiance from the sky, divided by pi."""
    cloud: tuple[float, float, float]
    clouds: float
    """Fraction of the sky covered, 0–1."""
    cloud_seed: float
    haze: float
    """1/m."""
    bounce: float = 0.16
    """Fraction of the light that comes back from the surroundings, from below and the sides."""

    def vector(self, name: str, device: torch.device) -> Tensor:
        return torch.tensor(getattr(self, name), device=device, dtype=torch.float32)


def sky(light: Light, direction: Tensor, detail: bool = True) -> Tensor:
    """`(N, 3)` radiance of the sky in world directions `(N, 3)`."""
    d = direction / direction.norm(dim=1, keepdim=True)
    up = d[:, 2].clamp(min=0.0)
    rise = (1 - torch.exp(-3.5 * up))[:, None]
    horizon, zenith = light.vector("horizon", d.device), light.vector("zenith", d.device)
    color = horizon + (zenith - horizon) * rise
    to_sun = (d @ light.vector("sun_direction", d.device)).clamp(min=0)
    glow = 0.35 * to_sun**8 + 1.5 * to_sun**64 + 12 * to_sun**1500
    color = color + light.vector("sun", d.device) * (0.22 * glow)[:, None]
    if detail and light.clouds > 0:
        x, y = d[:, 0] / (up + 0.12), d[:, 1] / (up + 0.12)
        n = noise.fractal(x * 1.1 + light.cloud_seed, y * 1.1, torch.full_like(x, 0.02), 5)
        cover = ((n[0] + light.clouds * 1.3 - 0.62) * 3.0).clamp(0, 1)
        tone = light.vector("cloud", d.device) * (1 + 0.55 * n[1] - 0.25 * cover)[:, None]
        color = color + (tone - color) * (cover * (up * 8).clamp(0.25, 1))[:, None]
    return color


def shadow_map(
    rows: Tensor, centre: Tensor, direction: Tensor, radius: float, size: int
) -> tuple[View, Tensor]:
    """Orthographic depth seen from the light, `(size, size)`, over a disc around `centre`."""
    forward = -direction / direction.norm()
    helper = torch.tensor([0.0, 1.0, 0.0] if abs(float(forward[1])) < 0.9 else [1.0, 0.0, 0.0])
    right = torch.linalg.cross(forward, helper.to(forward))
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    middle = (size - 1) / 2
    scale = size / (2 * radius)
    origin = centre - forward * 200.0
    view = View(origin, rotation, scale, scale, middle, middle, size, size, perspective=False)
    return view, cast(rows, view)[0]


def visibility(view: View, depth: Tensor, points: Tensor, bias: float, blur: int = 0) -> Tensor:
    """`(N,)` fraction of the light that reaches world points, 1 outside the map."""
    camera = view.camera(points)
    u, v = view.pixels(camera)
    size = view.width
    if blur:
        # Averaging exponentials of depth stands for averaging many comparisons.
        sharpness = 2.0
        base = depth.nan_to_num(posinf=260.0).clamp(max=260.0) - 200.0
        smooth = F.avg_pool2d(
            torch.exp(sharpness * base.clamp(-30, 30))[None, None], blur, 1, blur // 2
        )
        grid = torch.stack([u, v], dim=1)[None, None] * (2 / (size - 1)) - 1
        mean = F.grid_sample(smooth, grid, align_corners=True, padding_mode="border")[0, 0, 0]
        lit = (mean * torch.exp(-sharpness * (camera[:, 2] - 200.0 - bias).clamp(-30, 30))).clamp(
            0, 1
        )
    else:
        column, row = u.floor().clamp(0, size - 2), v.floor().clamp(0, size - 2)
        fu, fv = (u - column).clamp(0, 1), (v - row).clamp(0, 1)
        flat, index = depth.flatten(), (row * size + column).long()
        z = camera[:, 2] - bias
        near = [(flat.index_select(0, index + o) > z).float() for o in (0, 1, size, size + 1)]
        lit = (near[0] * (1 - fu) + near[1] * fu) * (1 - fv) + (
            near[2] * (1 - fu) + near[3] * fu
        ) * fv
    outside = (u < 0) | (u > size - 1) | (v < 0) | (v > size - 1)
    return torch.where(outside, 1.0, lit)


def illuminate(
    light: Light,
    look: Look,
    normals: Tensor,
    rays: Tensor,
    distance: Tensor,
    lit: Tensor,
    openness: Tensor,
) -> Tensor:
    """`(N, 3)` radiance towards the camera.

    `rays` run from the camera; `lit` is the sun's and `openness` the sky's visibility, 0–1.
    """
    device = normals.device
    to_sun = normals @ light.vector("sun_direction", device)
    sun = light.vector("sun", device) * (to_sun.clamp(min=0) * lit)[:, None]
    # Half of an upright face's sky is ground, which gives some of the light back.
    hemisphere = 0.5 + 0.5 * normals[:, 2]
    bounce = light.bounce * (light.vector("ambient", device) + 0.35 * light.vector("sun", device))
    ambient = light.vector("ambient", device) * (hemisphere * openness)[:, None]
    ambient = ambient + bounce * ((1 - hemisphere) * (0.4 + 0.6 * openness))[:, None]
    color = look.albedo * (sun + ambient) + look.glow
    glossy = (look.gloss > 0.06).nonzero()[:, 0]
    if len(glossy):
        d = rays[glossy] / rays[glossy].norm(dim=1, keepdim=True)
        n = normals[glossy]
        cosine = -(d * n).sum(1, keepdim=True)
        mirrored = d + 2 * cosine * n
        fresnel = 0.045 + 0.955 * (1 - cosine.abs().clamp(0, 1)) ** 5
        above = (mirrored[:, 2:] * 6 + 0.6).clamp(0, 1)
        street = light.vector("ambient", device) * 0.14 * openness[glossy, None]
        seen = street + (sky(light, mirrored) - street) * above
        color[glossy] += fresnel * look.gloss[glossy, None] * seen.clamp(max=20)
    far = torch.exp(-light.haze * distance)[:, None]
    air = 0.5 * (light.vector("horizon", device) + light.vector("ambient", device))
    return color * far + air * (1 - far)


def daylight(rng: np.random.Generator) -> Light:
    """A random hour and weather."""
    weather = rng.choice(["sunny", "broken", "overcast", "dusk"], p=[0.45, 0.27, 0.22, 0.06])
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.radians(rng.uniform(12, 62) if weather != "dusk" else rng.uniform(3, 12))
    direction = (
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.cos(elevation) * np.cos(azimuth)),
        float(np.sin(elevation)),
    )
    warmth = float(np.clip(1.15 - elevation, 0, 1)) * rng.uniform(0.3, 1)
    tint = np.array([1.0, 0.93 - 0.18 * warmth, 0.82 - 0.42 * warmth])
    strength = {
        "sunny": rng.uniform(2.2, 4.5),
        "broken": rng.uniform(0.8, 3.0),
        "overcast": 0.0,
        "dusk": 0.6,
    }
    sun = tint * strength[weather]
    if weather == "overcast":
        grey = rng.uniform(0.75, 1.25)
        zenith = np.array([0.86, 0.92, 1.0]) * grey
        horizon = np.array([0.95, 0.97, 1.0]) * grey * rng.uniform(0.7, 1.2)
        ambient, clouds = zenith * rng.uniform(0.4, 0.8), rng.uniform(0, 0.9)
    elif weather == "dusk":
        zenith = np.array([0.25, 0.32, 0.45]) * rng.uniform(0.7, 1.6)
        horizon = np.array([0.9, 0.75, 0.6]) * rng.uniform(0.7, 1.3)
        ambient, clouds = (zenith + 0.4 * horizon) * 0.7, rng.uniform(0, 0.8)
    else:
        zenith = np.array([0.22, 0.42, 0.85]) * rng.uniform(0.5, 1.2)
        horizon = np.array([0.85, 0.95, 1.1]) * rng.uniform(0.8, 1.9)
        clouds = rng.uniform(0, 0.45) if weather == "sunny" else rng.uniform(0.4, 0.8)
        ambient = 0.45 * zenith + 0.25 * horizon + 0.45 * clouds
    # What a camera sees of the sky outshines what reaches the ground of a built-up street.
    glare = rng.uniform(1.0, 2.4)
    zenith, horizon = zenith * glare, horizon * glare
    cloud = (
        glare * np.array([1.0, 1.0, 1.03]) * rng.uniform(0.9, 2.2 if strength[weather] > 1 else 1.2)
    )
    haze = float(np.exp(rng.uniform(np.log(5e-5), np.log(1.5e-3))))
    if rng.random() < 0.05:
        haze = rng.uniform(3e-3, 1.5e-2)

    def rgb(values: np.ndarray) -> tuple[float, float, float]:
        return float(values[0]), float(values[1]), float(values[2])

    return Light(
        direction,
        rgb(sun),
        rgb(zenith),
        rgb(horizon),
        rgb(ambient),
        rgb(cloud),
        float(clouds),
        float(rng.uniform(0, 200)),
        float(haze),
    )
