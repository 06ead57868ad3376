"""Cabinets, shelves and screens: the back at x = 0, depth towards +x, width along y, on z = 0."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from emu_perception.scenes.household import (
    SHADE_OF_THINGS,
    Labels,
    board,
    things,
    timber,
)
from emu_perception.scenes.primitives import (
    Material,
    Rows,
    Shape,
    primitives,
)


def cabinet(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A wardrobe, sideboard or chest of drawers, with seams and handles."""
    width, depth = rng.uniform(0.5, 1.8), rng.uniform(0.35, 0.6)
    height = rng.uniform(0.5, 1.1) if rng.random() < 0.6 else rng.uniform(1.6, 2.2)
    color, name = timber(rng), label["furniture"]
    parts = [
        board((depth / 2, 0, height / 2), (depth / 2, width / 2, height / 2), color * 0.8, name)
    ]
    columns, rows = max(1, round(width / 0.5)), int(rng.integers(1, 5)) if height < 1.2 else 1
    for i in range(columns):
        for j in range(rows):
            y, z = (i + 0.5) / columns * width - width / 2, (j + 0.5) / rows * (height - 0.1) + 0.05
            half = (0.012, width / columns / 2 - 0.008, (height - 0.1) / rows / 2 - 0.008)
            parts.append(board((depth + 0.008, y, z), half, color, name, seed=i * 7.0 + j))
            parts.append(
                primitives(
                    Shape.ELLIPSOID,
                    (depth + 0.03, y + half[1] * 0.5 * (rows == 1), z),
                    (0.015, 0.03, 0.015),
                    label=name,
                    color=(0.3, 0.3, 0.3),
                    shade=SHADE_OF_THINGS,
                )
            )
    if height < 1.2:
        parts += things(
            rng,
            label,
            (0.08, depth - 0.1),
            (-width / 2 + 0.1, width / 2 - 0.1),
            height,
            int(rng.integers(0, 5)),
        )
    return np.concatenate(parts), width, depth


def bookcase(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """Shelves with books and objects."""
    width, depth, height = rng.uniform(0.6, 1.4), rng.uniform(0.25, 0.36), rng.uniform(0.9, 2.2)
    color, name = timber(rng), label["furniture"]
    levels = np.linspace(0.06, height - 0.02, max(3, round(height / 0.36)))
    shelf = np.stack([np.full(len(levels), depth / 2), np.zeros(len(levels)), levels], axis=1)
    parts = [
        board(shelf, (depth / 2, width / 2, 0.012), color, name),
        board(
            [(depth / 2, s * width / 2, height / 2) for s in (-1, 1)],
            (depth / 2, 0.012, height / 2),
            color,
            name,
        ),
        board((0.01, 0, height / 2), (0.008, width / 2, height / 2), color * 0.7, name),
    ]
    for low, high in pairwise(levels):
        kind, share = rng.random(), rng.uniform(0.4, 0.98)
        if kind < 0.75:
            tall = (high - low) * rng.uniform(0.35, 0.45)
            parts.append(
                primitives(
                    Shape.BOX,
                    (depth * 0.45, -width / 2 * (1 - share), low + 0.012 + tall),
                    (depth * 0.38, width / 2 * share - 0.02, tall),
                    material=Material.BOOKS,
                    label=label["books"],
                    seed=rng.uniform(0, 50),
                    shade=0.7,
                    param=(rng.uniform(0.018, 0.04), 0, 0, 0),
                )
            )
        elif kind < 0.9:
            parts += things(
                rng,
                label,
                (depth * 0.3, depth * 0.7),
                (-width * 0.35, width * 0.35),
                low + 0.012,
                1,
            )
    return np.concatenate(parts), width, depth


def television(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A screen on a low cabinet."""
    width, depth = rng.uniform(0.6, 1.8), rng.uniform(0.35, 0.6)
    height = float(rng.uniform(0.4, 0.6))
    stand = board(
        (depth / 2, 0, height / 2),
        (depth / 2, width / 2, height / 2),
        timber(rng),
        label["furniture"],
    )
    w = min(width / 2 * 0.95, rng.uniform(0.3, 0.7))
    h = w * rng.uniform(0.56, 0.75)
    on = float(rng.random() < 0.3)
    parts = [
        stand,
        primitives(
            Shape.BOX,
            (depth / 2, 0, height + h + 0.05),
            (0.03, w + 0.03, h + 0.03),
            label=label["tv"],
            color=(0.02,) * 3,
            shade=SHADE_OF_THINGS,
        ),
        primitives(
            Shape.BOX,
            (depth / 2 + 0.03, 0, height + h + 0.05),
            (0.004, w, h),
            label=label["tv"],
            material=Material.PATTERN if on else Material.GLASS,
            color=(0.1, 0.2, 0.4) if on else (0.012,) * 3,
            color2=(0.7, 0.6, 0.4),
            seed=rng.uniform(0, 50),
            param=(2, 0, 0, 0),
            shade=SHADE_OF_THINGS,
        ),
    ]
    return np.concatenate(parts), width, depth
