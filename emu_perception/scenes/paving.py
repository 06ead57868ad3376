"""Colours of the ground: asphalt with wear and markings, slabs, grass, gravel, puddles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emu_perception.scenes import noise
from emu_perception.scenes.ground import Layout
from emu_perception.scenes.look import Look

ROAD, PAVEMENT, GRASS = 0, 1, 2
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Paving:
    """Appearance of the ground of one street; colours are linear albedo."""

    asphalt: Color
    slabs: Color
    grass: Color
    dry_grass: Color
    markings: float
    """How bright the paint is, 0 (worn away) to 1."""
    centre: str
    """'dashed', 'double' or 'none'."""
    edges: str
    """'none', 'line' or 'double_yellow'."""
    lanes: tuple[float, ...]
    """t of further dashed lines, metres."""
    roughness: float
    patches: float
    wetness: float
    leaves: float
    stop_lines: tuple[float, ...]
    """s of stop lines or zebra crossings."""
    zebra: bool
    cars_lane: float
    """Mean t of the driven lane."""


def _color(values: Color, like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=torch.float32).expand(like.shape[0], 3)


def _stripe(offset: Tensor, half_width: float, footprint: Tensor) -> Tensor:
    """Coverage 0–1 of a line, softened over a pixel."""
    soft = footprint.clamp(min=0.01)
    return ((half_width - offset.abs()) / soft + 0.5).clamp(0, 1) * (2 * half_width / soft).clamp(
        max=1
    )


def regions(layout: Layout, s: Tensor, t: Tensor, distance: Tensor) -> Tensor:
    """`(N,)` ROAD, PAVEMENT or GRASS."""
    result = torch.full_like(distance, ROAD, dtype=torch.long)
    for side, mask in zip(layout.sides, (t <= 0, t > 0), strict=True):
        off = distance - 0.15  # the kerb's stone belongs to the pavement
        kind = torch.full_like(result, PAVEMENT)
        kind[(off > 0) & (off < side.verge)] = GRASS
        if side.front == "grass":
            kind[off > side.width] = GRASS
        kind[off > 40] = GRASS
        result = torch.where(mask & (distance >= 0), kind, result)
    return result


def paving(
    style: Paving,
    layout: Layout,
    s: Tensor,
    t: Tensor,
    distance: Tensor,
    footprint: Tensor,
    along: Tensor,
) -> tuple[Look, Tensor]:
    """The look and region of ground points; `footprint` across and `along` the view, metres."""
    region = regions(layout, s, t, distance)
    coarse = noise.fractal(s * 0.13, t * 0.21, along * 0.2, 4)
    fine = noise.fractal(s * 3.0, t * 3.0, (footprint * along).sqrt() * 3, 4)
    grain = noise.fractal(s * 23.0, t * 23.0, (footprint * along).sqrt() * 18, 2)
    # Asphalt: patches laid later, tyre tracks, cracks, oil, manholes.
    tone = 1 + 0.5 * coarse[0] + style.roughness * (0.5 * fine[0] + 1.2 * grain[0])
    big = noise.cell(s / 7.3 + coarse[1] * 0.05, t / 2.1)
    tone = tone * torch.where(big < style.patches, 0.62 + big / max(style.patches, 0.01) * 0.7, 1.0)
    track = torch.cos((t - style.cars_lane) * (2 * torch.pi / 1.6))
    tone = tone * (1 - 0.07 * track - 0.10 * torch.exp(-((t - style.cars_lane) ** 2) * 3))
    crack = (noise.smooth(s * 0.31 + 0.4 * fine[1], t * 0.55 + 0.4 * fine[2])[1] - 0.5).abs()
    tone = tone * torch.where((crack < 0.012) & (footprint < 0.1) & (coarse[2] > 0.05), 0.55, 1.0)
    seam = ((t - style.cars_lane - 1.9).abs() < 0.02) & (footprint < 0.06)
    tone = tone * torch.where(seam, 0.7, 1.0)
    cell_s, cell_t = s / 11.0, t / 3.3
    lid = noise.cell(cell_s, cell_t, 3.0) < 0.12
    lid_distance = torch.hypot(
        (cell_s.remainder(1) - 0.5) * 11.0, (cell_t.remainder(1) - 0.4) * 3.3
    )
    tone = tone * torch.where(lid & (lid_distance < 0.33), 0.5 + 0.3 * (lid_distance < 0.27), 1.0)
    albedo = _color(style.asphalt, s) * tone[:, None]
    # Markings, worn.
    wear = (style.markings * (1.05 + 0.9 * fine[1] + 0.6 * coarse[1])).clamp(0, 1)
    white, yellow = _color((0.72, 0.72, 0.68), s), _color((0.62, 0.42, 0.05), s)
    line = torch.zeros_like(s)
    golden = torch.zeros_like(s)
    clear = torch.ones_like(s)
    for junction in layout.junctions:
        clear = clear * ((s - junction.s).abs() > junction.half_width + 1)
    if style.centre == "dashed":
        line = torch.maximum(
            line, _stripe(t, 0.06, footprint) * ((s / 6.0).remainder(1) < 0.45) * clear
        )
    elif style.centre == "double":
        golden = (
            torch.maximum(_stripe(t - 0.14, 0.055, footprint), _stripe(t + 0.14, 0.055, footprint))
            * clear
        )
    for lane in style.lanes:
        line = torch.maximum(
            line, _stripe(t - lane, 0.06, footprint) * ((s / 9.0).remainder(1) < 0.35) * clear
        )
    if style.edges == "line":
        line = torch.maximum(line, _stripe(distance + 0.45, 0.07, footprint))
    elif style.edges == "double_yellow":
        golden = torch.maximum(golden, _stripe(distance + 0.25, 0.045, footprint))
        golden = torch.maximum(golden, _stripe(distance + 0.45, 0.045, footprint))
    for place in style.stop_lines:
        if style.zebra:
            bar = _stripe(s - place, 1.4, along) * (((t + 50) / 1.0).remainder(1) < 0.5)
        else:
            bar = _stripe(s - place, 0.15, along) * (t < 0 if style.cars_lane < 0 else t > 0)
        line = torch.maximum(line, bar * (distance < -0.3))
    albedo = albedo + (white - albedo) * (line * wear)[:, None]
    albedo = albedo + (yellow - albedo) * (golden * wear)[:, None]
    gutter = torch.exp(-((distance + 0.12) ** 2) / 0.02) * (distance < 0)
    albedo = albedo * (1 - 0.45 * gutter)[:, None]
    # Pavement: slabs or asphalt, with a kerb of stone.
    slab_tone = 1 + 0.45 * fine[2] + 0.3 * coarse[3] + 0.5 * grain[1]
    row, column = distance / 0.6, s / 0.9
    joint = ((row.remainder(1) < 0.04) | (column.remainder(1) < 0.03)) & (footprint < 0.06)
    slab_tone = (
        slab_tone * (1 + 0.25 * (noise.cell(row, column) - 0.5)) * torch.where(joint, 0.6, 1.0)
    )
    slab = _color(style.slabs, s) * slab_tone[:, None]
    stone = (distance >= 0) & (distance < 0.16)
    kerb_joint = (s / 0.9).remainder(1) < 0.03
    slab = torch.where(stone[:, None], slab * torch.where(kerb_joint, 0.6, 1.15)[:, None], slab)
    gravel = _color((0.30, 0.26, 0.21), s) * (1 + 1.2 * grain[2] + 0.5 * coarse[0])[:, None]
    for side, mask in zip(layout.sides, (t <= 0, t > 0), strict=True):
        if side.front == "gravel":
            slab = torch.where((mask & (distance > side.width + 0.15))[:, None], gravel, slab)
    # Grass: blades, clumps, dry and bare patches.
    albedo = torch.where((region == PAVEMENT)[:, None], slab, albedo)
    green = (region == GRASS).nonzero()[:, 0]
    if len(green):
        gs, gt, size = (c.index_select(0, green) for c in (s, t, (footprint * along).sqrt()))
        blades = noise.fractal(gs * 9.0, gt * 9.0, size * 9, 3)[0]
        patchy, clumps = coarse[1].index_select(0, green), fine.index_select(1, green)
        dry = (0.35 + 1.3 * patchy + 0.7 * clumps[3]).clamp(0, 1)[:, None]
        lawn = _color(style.grass, gs) * (1 - dry) + _color(style.dry_grass, gs) * dry
        albedo[green] = lawn * (1 + 0.9 * blades + 0.35 * clumps[0])[:, None]
    if style.leaves > 0:
        litter = (
            noise.cell(s * 14, t * 14)
            < style.leaves * (0.3 + 2 * torch.exp(-(distance**2) / 0.8)) * 0.2
        )
        litter &= footprint < 0.08
        albedo = torch.where(litter[:, None], _color((0.25, 0.13, 0.04), s), albedo)
    look = Look.matte(albedo)
    wet = ((coarse[0] + 0.35 * coarse[2] + style.wetness - 0.75) * 5).clamp(0, 1) * (
        region != GRASS
    )
    look.albedo = look.albedo * (1 - 0.55 * wet - 0.25 * style.wetness)[:, None]
    look.gloss = wet * 0.45 + 0.05 * (region == ROAD)
    return look, region
