"""Walls of houses: brick or plaster, windows, doors and shop fronts."""

from __future__ import annotations

import torch

from emu_perception.scenes import noise
from emu_perception.scenes.look import (
    Look,
    Samples,
    bricks,
    stains,
)
from emu_perception.scenes.primitives import HALF

FACADE_SUNK = 1.0
"""How far a facade's box reaches into the ground, metres."""


def facade(s: Samples) -> Look:
    """Walls with windows, doors, shop fronts. Parameters: bay, floor height, style, shop."""
    across, up, upright = s.wall()
    up = up - FACADE_SUNK
    bay, floor, style, shop = (
        s.param(i).clamp(min=0.01) if i < 2 else s.param(i) for i in range(4)
    )
    wall = s.color * stains(s, 0.6, 0.35)[:, None]
    brick = (style.remainder(1.0) < 0.5)[:, None]
    wall = torch.where(brick, wall * bricks(across, up, s.footprint, 0.23, 0.075)[:, None], wall)
    # Dirt from the ground up and down from the eaves.
    wall = wall * (1 - 0.25 * torch.exp(-up.clamp(min=0) / 0.8))[:, None]
    column, storey = (across / bay).floor(), (up / floor).floor()
    fu, fv = (across / bay).remainder(1), (up / floor).remainder(1)
    variety = noise.cell(column, storey, s.seed)
    width = 0.28 + 0.12 * ((s.seed * 7.31).remainder(1)) + 0.15 * (style >= 2)
    low, high = 0.27 + 0 * up, 0.74 + 0.12 * ((s.seed * 3.7).remainder(1))
    total = s.rows[:, HALF.start + 2] * 2 - FACADE_SUNK
    ground_floor = storey == 0
    door = ground_floor & (noise.cell(column, storey + 7, s.seed) < 0.3) & (shop < 0.5)
    low = torch.where(door, 0.0, low)
    width = torch.where(door, 0.5 / bay, width)
    front = ground_floor & (shop > 0.5)
    low = torch.where(front, 0.14, low)
    high = torch.where(front, 0.72, high)
    width = torch.where(front, 0.46, width)
    inside = (fv > low) & (fv < high) & ((fu - 0.5).abs() < width) & upright
    inside &= (up < total - 0.3) & (up > 0) & ((variety < 0.93) | front)
    edge_u = ((width - (fu - 0.5).abs()) * bay).clamp(min=0)
    edge_v = torch.minimum(fv - low, high - fv).clamp(min=0) * floor
    mullion = ((fu - 0.5).abs() * bay < 0.04) | ((fv - (low + high) / 2).abs() * floor < 0.03)
    frame = inside & (
        (torch.minimum(edge_u, edge_v) < 0.07) | (mullion & ~front & (variety > 0.25))
    )
    sill = upright & ((fv - low + 0.02).abs() < 0.02) & ((fu - 0.5).abs() < width + 0.03) & ~front
    lintel = (
        upright & ((fv - high - 0.03).abs() < 0.03) & ((fu - 0.5).abs() < width + 0.02) & ~front
    )
    albedo = torch.where(((sill | lintel) & (up < total - 0.3))[:, None], s.color2, wall)
    look = Look.matte(albedo)
    # Behind the panes: dark rooms, curtains, blinds, goods on display.
    shelf = noise.smooth(across * 2.7 + s.seed * 5, up * 1.9)
    items = noise.fractal(across * 6 + s.seed, up * 4, s.footprint * 6, 3)
    goods = (0.10 + 0.9 * (shelf[3] - 0.3).clamp(min=0) + 0.5 * items[0]).clamp(0.02, 1)[:, None]
    goods = goods * (0.7 + 0.3 * shelf[:3].T + 0.25 * items[1:4].T)
    room = 0.015 + 0.03 * variety[:, None] + 0 * goods
    curtain = inside & ((variety * 17).remainder(1) < 0.45) & ~front
    edge = (fu - 0.5).abs() / width > 0.45 + 0.5 * (variety * 31).remainder(1)
    folds = 0.35 + 0.2 * (across * 40).sin() * (1 - s.footprint * 20).clamp(0, 1)
    room = torch.where((curtain & edge)[:, None], folds[:, None].expand(-1, 3), room)
    room = torch.where(front[:, None], goods * 0.3, room)
    shade = torch.minimum(edge_v / 0.5, torch.ones_like(up)) * 0.5 + 0.5
    look.albedo = torch.where(inside[:, None], room * shade[:, None], look.albedo)
    look.albedo = torch.where(frame[:, None], s.color2, look.albedo)
    panel = (s.seed * 11.3).remainder(1)[:, None] * s.color2 + 0.05
    look.albedo = torch.where((door & inside & ~frame)[:, None], panel, look.albedo)
    look.gloss = torch.where(inside & ~frame & ~door, 0.9, 0.0)
    # Fascia with lettering above a shop front.
    fascia = front & (fv > 0.76) & (fv < 0.95) & upright
    sign = s.color2 * 0.7 + 0.3 * torch.stack(
        [(s.seed * k).sin().abs() for k in (3.1, 5.7, 9.3)], 1
    )
    text = (noise.cell(across * 5, up * 3, s.seed) > 0.45) & ((fv - 0.855).abs() < 0.05)
    text &= (across / bay * 0.37 + s.seed).remainder(1) < 0.6
    look.albedo = torch.where(
        fascia[:, None], torch.where(text[:, None], 0.8 - sign * 0.7, sign), look.albedo
    )
    lit = inside & ((variety * 53).remainder(1) < 0.04)
    look.glow = torch.where(
        (lit & ~frame)[:, None], goods * torch.tensor([0.9, 0.7, 0.4], device=up.device), look.glow
    )
    return look
