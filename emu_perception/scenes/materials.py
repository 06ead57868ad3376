"""Colours of primitives: procedural textures in metres, fading where finer than a pixel."""

from __future__ import annotations

from collections.abc import Callable

import torch

from emu_perception.scenes import noise
from emu_perception.scenes.facade import facade
from emu_perception.scenes.look import (
    Look,
    Samples,
    bricks,
    mix,
    stains,
)
from emu_perception.scenes.primitives import (
    HALF,
    MATERIAL,
    Material,
)


def roof(s: Samples) -> Look:
    """Tiles or slates in courses."""
    up, across = s.local[:, 2], s.local[:, 0] + s.local[:, 1]
    return Look.matte(
        s.color * (bricks(across, up, s.footprint, 0.3, 0.16) * stains(s, 0.5, 0.4))[:, None]
    )


def foliage(s: Samples) -> Look:
    """Leaves in clusters of light and dark, browner here and there."""
    leaf = s.param(0)
    point = s.point * (leaf * 0.8)[:, None]
    fine = noise.volume(point[:, 0] + 11, point[:, 1] + 5, point[:, 2] + 3)
    coarse = noise.volume(point[:, 0] * 0.17, point[:, 1] * 0.17, point[:, 2] * 0.17 + 9)
    tone = 0.30 + 0.9 * fine**1.5 + 0.5 * (coarse - 0.5)
    # Under and inside the crown it is dark.
    tone = tone * (0.72 + 0.28 * s.unit[:, 2])
    return Look.matte(mix(s.color, s.color2, coarse) * tone[:, None])


def bark(s: Samples) -> Look:
    """Trunks: vertical streaks."""
    turn = torch.atan2(s.local[:, 1], s.local[:, 0]) * 2.5
    streak = noise.fractal(turn + s.seed, s.point[:, 2] * 1.5, s.footprint * 8, 3)[0]
    return Look.matte(s.color * (1 + 0.8 * streak)[:, None])


def paint(s: Samples) -> Look:
    """A car's body: glossy, with grille, lights, plate, door seams and a dark sill."""
    x, y, z = s.unit.T
    up = s.local[:, 2] + s.rows[:, HALF.start + 2]
    albedo = s.color * (1 - 0.12 * torch.exp(-up * 3))[:, None]
    front, rear = y > 0.97, y < -0.97
    end = front | rear
    side = (x.abs() > 0.9) & ~end
    seam = side & (((s.local[:, 1] + 0.15).abs() % 1.05) < 0.02 + s.footprint * 0.3)
    lamp = end & (x.abs() > 0.62) & (x.abs() < 0.97) & (z > 0.2) & (z < 0.75)
    grille = front & (x.abs() < 0.5) & (z > -0.35) & (z < 0.45)
    bumper = (z < -0.55) | (end & (z < -0.25) & (s.seed.remainder(1) < 0.4))
    plate = end & (x.abs() < 0.3) & ((z + 0.15).abs() < 0.14)
    dark = torch.full_like(albedo, 0.02)
    albedo = torch.where((seam | grille | bumper)[:, None], dark + 0.1 * albedo, albedo)
    white = torch.tensor([0.75, 0.75, 0.72], device=x.device).expand_as(albedo)
    red = torch.tensor([0.45, 0.02, 0.02], device=x.device).expand_as(albedo)
    yellow = torch.tensor([0.75, 0.6, 0.05], device=x.device).expand_as(albedo)
    albedo = torch.where(
        plate[:, None], torch.where((front | (s.seed > 50))[:, None], white, yellow), albedo
    )
    albedo = torch.where(lamp[:, None], torch.where(front[:, None], white, red), albedo)
    look = Look.matte(albedo)
    look.gloss = torch.where(bumper | grille | plate, 0.05, 0.75)
    lit = lamp & (s.param(0) > 0.5)
    look.glow = torch.where(
        lit[:, None], torch.where(front[:, None], white * 2.5, red * 1.6), look.glow
    )
    return look


def cabin(s: Samples) -> Look:
    """A car's upper part: glass between pillars under a painted roof."""
    x, y, z = s.unit.T
    roof_ = z > 0.86
    edge = z < -0.82
    pillar = ((y.abs() > 0.86 - 0.2 * (z + 1) * s.param(0)) & (x.abs() > 0.72)) | (
        (y + 0.05).abs() < 0.035
    )
    glass = ~roof_ & ~edge & ~pillar
    if_van = s.param(1) > 0.5  # panel vans have windows in front only
    glass &= ~(if_van & (y < 0.45))
    inside = noise.smooth(s.local[:, 1] * 2 + s.seed, s.local[:, 2] * 4)[0] * 0.05 + 0.01
    look = Look.matte(torch.where(glass[:, None], inside[:, None].expand(-1, 3), s.color))
    look.gloss = torch.where(glass, 1.0, 0.75)
    return look


def tyre(s: Samples) -> Look:
    """Black rubber round a metal hub (param 0: the hub's fraction of the radius)."""
    radius = s.unit[:, :2].norm(dim=1)
    turn = torch.atan2(s.unit[:, 1], s.unit[:, 0])
    hub = (radius < s.param(0)) & (s.unit[:, 2].abs() > 0.9)
    spoke = 0.35 + 0.65 * ((turn * 5 + s.seed).cos() > -0.2)
    return Look.matte(torch.where(hub[:, None], s.color2 * spoke[:, None], s.color))


def cloth(s: Samples) -> Look:
    """Clothes: folds, now and then stripes or a print in the second colour."""
    folds = noise.fractal(
        s.local[:, 0] * 6 + s.seed, s.local[:, 2] * 3 + s.local[:, 1] * 4, s.footprint * 6, 3
    )[0]
    stripe = ((s.local[:, 2] * 22).sin() > 0.2) & (s.seed.remainder(1) < 0.15)
    return Look.matte(torch.where(stripe[:, None], s.color2, s.color) * (1 + 0.6 * folds)[:, None])


def sign(s: Samples) -> Look:
    """Plates: a border, then a blot of lettering; bare metal behind. Param 0: style."""
    x, z = s.unit[:, 0], s.unit[:, 2]
    back = s.unit[:, 1] > 0.9
    style = s.param(0)
    edge = torch.maximum(x.abs(), z.abs())
    round_ = torch.hypot(x, z)
    edge = torch.where(style >= 2, round_, edge)
    rows_of_text = ((z * 3.5).remainder(1) > 0.45) & (
        noise.cell(x * 9 + s.seed, (z * 3.5).floor()) > 0.35
    )
    blot = torch.where(
        style >= 1, noise.smooth(x * 2 + s.seed * 9, z * 2)[0] > 0.62, rows_of_text & (edge < 0.75)
    )
    albedo = torch.where((edge > 0.8)[:, None], s.color2, s.color)
    albedo = torch.where(
        (blot & (edge < 0.8))[:, None], (s.color2 + 0.1) * (1 - 0.5 * s.color), albedo
    )
    metal = torch.full_like(albedo, 0.22)
    look = Look.matte(torch.where(back[:, None], metal, albedo))
    look.gloss = torch.full_like(x, 0.1)
    return look


def brick(s: Samples) -> Look:
    """Garden walls."""
    across, up, upright = s.wall()
    tone = bricks(across, up, s.footprint, 0.23, 0.075) * stains(s, 0.9, 0.5)
    top = ~upright | (s.unit[:, 2] > 0.9)
    return Look.matte(torch.where(top[:, None], s.color2, s.color) * tone[:, None])


def wood(s: Samples) -> Look:
    """Boards with grain, `param` 0 wide (metres)."""
    across, up, _ = s.wall()
    width = s.param(0).clamp(min=0.02)
    board = (across / width).floor()
    tone = 1 + 0.5 * (noise.cell(board, board * 0 + 3, s.seed) - 0.5)
    gap = (across / width).remainder(1) < 0.08
    grain = noise.fractal(across * 30, up * 1.5 + board * 3.7, s.footprint * 30, 3)[0]
    tone = tone * (1 + 0.35 * grain) * torch.where(gap & (s.footprint < width), 0.35, 1.0)
    look = Look.matte(s.color * tone[:, None])
    look.gloss = torch.full_like(tone, 0.06)
    return look


def pattern(s: Samples) -> Look:
    """Blots of two colours, `param` 0 cells a metre: fabrics, pictures, unknown objects."""
    scale = s.param(0).clamp(min=0.2)
    n = noise.fractal(
        (s.local[:, 0] + 0.6 * s.local[:, 1]) * scale + s.seed * 7,
        (s.local[:, 2] - 0.8 * s.local[:, 1]) * scale,
        s.footprint * scale,
        4,
    )
    share = (0.5 + 2.0 * n[0]).clamp(0, 1)
    return Look.matte(mix(s.color, s.color2, share) * (1 + 0.3 * n[1, :, None] + 0.12 * n[1:4].T))


def glow(s: Samples) -> Look:
    """Lamps; `param` 0: how bright."""
    look = Look.matte(s.color)
    look.glow = s.color * s.param(0)[:, None]
    return look


def glass(s: Samples) -> Look:
    """Dark panes and screens."""
    look = Look.matte(s.color)
    look.gloss = torch.full_like(s.seed, 0.9)
    return look


def books(s: Samples) -> Look:
    """Spines on a shelf, `param` 0: mean thickness (metres)."""
    across, up, _ = s.wall()
    index = (across / s.param(0).clamp(min=0.01)).floor()
    height = s.rows[:, HALF.start + 2] * 2 * (0.7 + 0.3 * noise.cell(index, index * 0 + 5, s.seed))
    hue = torch.stack([noise.cell(index, index * 0 + k, s.seed) for k in (1, 2, 3)], dim=1)
    return Look.matte(torch.where((up < height)[:, None], 0.05 + 0.5 * hue**2, 0.02 + 0 * hue))


def plain(s: Samples) -> Look:
    """One colour, a little uneven; `param` 3: gloss."""
    look = Look.matte(s.color * stains(s, 1.7, 0.3, 3)[:, None])
    look.gloss = s.param(3).clone()
    return look


_TEXTURES: dict[Material, Callable[[Samples], Look]] = {
    Material.PLAIN: plain,
    Material.FACADE: facade,
    Material.ROOF: roof,
    Material.FOLIAGE: foliage,
    Material.BARK: bark,
    Material.PAINT: paint,
    Material.CABIN: cabin,
    Material.TYRE: tyre,
    Material.CLOTH: cloth,
    Material.SIGN: sign,
    Material.BRICK: brick,
    Material.WOOD: wood,
    Material.PATTERN: pattern,
    Material.GLOW: glow,
    Material.GLASS: glass,
    Material.BOOKS: books,
}


def look_of(samples: Samples) -> Look:
    """The look of every sample, whatever its material."""
    result = Look.matte(torch.zeros_like(samples.point))
    kinds = samples.rows[:, MATERIAL].long()
    for kind in kinds.unique().tolist():
        index = (kinds == kind).nonzero()[:, 0]
        look = _TEXTURES[Material(kind)](
            Samples(
                *(
                    getattr(samples, f).index_select(0, index)
                    for f in ("rows", "local", "unit", "point", "footprint")
                )
            )
        )
        result.albedo[index], result.gloss[index], result.glow[index] = (
            look.albedo,
            look.gloss,
            look.glow,
        )
    result.albedo.clamp_(0.003, 0.95)
    return result
