"""Houses and blocks along y that face -x: x right, y forward, z up, on z = 0."""

from __future__ import annotations

import numpy as np

from emu_perception.scenes.facade import FACADE_SUNK
from emu_perception.scenes.primitives import (
    Material,
    Rows,
    Shape,
    primitives,
)

WALLS = np.array(
    [
        [0.25, 0.12, 0.08],
        [0.30, 0.17, 0.11],
        [0.38, 0.31, 0.20],
        [0.42, 0.37, 0.26],
        [0.20, 0.16, 0.13],
        [0.60, 0.58, 0.53],
        [0.66, 0.65, 0.62],
        [0.50, 0.46, 0.38],
        [0.33, 0.33, 0.33],
        [0.14, 0.13, 0.12],
    ]
)
"""Linear albedo of plaster, brick and stone."""


def building(
    rng: np.random.Generator,
    label: int,
    width: float,
    depth: float,
    height: float,
    *,
    wall: np.ndarray | None = None,
    pitched: bool = True,
    shop: bool = False,
    modern: bool = False,
    sign: int = 255,
) -> Rows:
    """A house or block: front at x = 0, `width` along y, `depth` to +x, `height` to the eaves."""
    index = int(rng.integers(len(WALLS)))
    color = WALLS[index] * rng.uniform(0.75, 1.2) if wall is None else wall
    brick = 0.25 if color[0] > 1.25 * color[2] and color[0] < 0.45 else 0.75
    trim = np.full(3, rng.choice([0.65, 0.6, 0.08, 0.3])) * rng.uniform(0.8, 1.1, 3)
    floors = max(1, round(height / rng.uniform(2.7, 3.3)))
    bay = width / max(1, round(width / rng.uniform(1.9, 3.6)))
    style = brick + (2.0 if modern else 0.0)
    seed = rng.uniform(0, 90)
    param = (bay, height / floors, style, float(shop))
    # Sunk for sloping ground; the texture counts heights from the ground.
    half = (depth / 2, width / 2, (height + FACADE_SUNK) / 2)
    centre = (depth / 2, 0, (height - FACADE_SUNK) / 2)
    parts = [
        primitives(
            Shape.BOX,
            centre,
            half,
            material=Material.FACADE,
            label=label,
            color=color,
            color2=trim,
            seed=seed,
            param=param,
        )
    ]
    if pitched:
        rise = depth * rng.uniform(0.25, 0.42)
        tiles = np.array([[0.16, 0.08, 0.06], [0.09, 0.09, 0.10], [0.14, 0.12, 0.10]])[
            rng.integers(3)
        ]
        along = rng.random() < 0.8
        parts.append(
            primitives(
                Shape.FRUSTUM,
                (depth / 2, 0, height + rise / 2),
                (depth / 2 + 0.3, width / 2 + 0.02, rise / 2),
                taper=(1.0, 0.0) if along else (0.0, 1.0),
                material=Material.ROOF,
                label=label,
                color=tiles,
            )
        )
        if rng.random() < 0.7:
            side = rng.choice([-1, 1]) * width * 0.42
            parts.append(
                primitives(
                    Shape.BOX,
                    (depth / 2, side, height + rise),
                    (0.35, 0.5, 1.1),
                    material=Material.BRICK,
                    label=label,
                    color=color * 0.8,
                    color2=color * 0.6,
                )
            )
    else:
        parts.append(
            primitives(
                Shape.BOX,
                (depth / 2, 0, height + 0.25),
                (depth / 2 + 0.15, width / 2 + 0.05, 0.3),
                label=label,
                color=trim * 0.7,
            )
        )
    if not shop and not modern and rng.random() < 0.35:  # bay window
        y = rng.uniform(-0.25, 0.25) * width
        parts.append(
            primitives(
                Shape.BOX,
                (-0.35, y, (3 - FACADE_SUNK) / 2),
                (0.5, 1.1, (3 + FACADE_SUNK) / 2),
                material=Material.FACADE,
                label=label,
                color=trim,
                color2=trim,
                seed=seed + 1,
                param=(1.1, 3.0, 0.75, 0),
            )
        )
    if shop and rng.random() < 0.4:  # awning
        parts.append(
            primitives(
                Shape.FRUSTUM,
                (-0.55, 0, 2.9),
                (0.8, width * 0.42, 0.3),
                taper=(0.9, 0.0),
                material=Material.PATTERN,
                label=label,
                color=rng.uniform(0.02, 0.6, 3),
                color2=(0.6, 0.6, 0.55),
                param=(0.6, 0, 0, 0),
            )
        )
    if shop and rng.random() < 0.5:  # a board that hangs over the pavement
        parts.append(
            primitives(
                Shape.BOX,
                (-0.55, rng.uniform(-0.4, 0.4) * width, rng.uniform(3.0, 3.8)),
                (0.4, 0.06, 0.4),
                material=Material.SIGN,
                label=sign,
                color=rng.uniform(0.02, 0.7, 3),
                color2=rng.uniform(0.02, 0.7, 3),
                seed=seed,
                param=(0, 0, 0, 0),
            )
        )
    if modern and rng.random() < 0.5:  # balconies or ledges
        levels = np.arange(1, floors) * (height / floors)
        if len(levels):
            at = np.stack([np.full(len(levels), -0.2), np.zeros(len(levels)), levels], axis=1)
            parts.append(
                primitives(Shape.BOX, at, (0.45, width * 0.47, 0.1), label=label, color=trim)
            )
    return np.concatenate(parts)
