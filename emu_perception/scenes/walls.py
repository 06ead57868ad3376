"""Objects on and in a room's walls: the wall at x = 0, the room towards +x."""

from __future__ import annotations

import numpy as np

from emu_perception.scenes.household import (
    SHADE_OF_THINGS,
    Labels,
    board,
    fabric,
    timber,
)
from emu_perception.scenes.primitives import (
    Material,
    Rows,
    Shape,
    primitives,
)


def picture(rng: np.random.Generator, label: Labels) -> Rows:
    """A framed picture on the wall, its centre at the origin's height."""
    w, h = rng.uniform(0.12, 0.6), rng.uniform(0.12, 0.45)
    frame = primitives(
        Shape.BOX, (0.012, 0, 0), (0.012, w, h), label=label["picture"], color=timber(rng)
    )
    inside = primitives(
        Shape.BOX,
        (0.022, 0, 0),
        (0.006, w - 0.03, h - 0.03),
        material=Material.PATTERN,
        label=label["picture"],
        color=rng.uniform(0.02, 0.8, 3),
        color2=rng.uniform(0.02, 0.8, 3),
        seed=rng.uniform(0, 80),
        param=(rng.uniform(2, 9), 0, 0, 0),
    )
    return np.concatenate([frame, inside])


def window(rng: np.random.Generator, label: Labels, day: float) -> Rows:
    """A window with a frame and perhaps curtains or blinds; `day` is the light outside."""
    w, h = rng.uniform(0.4, 1.1), rng.uniform(0.4, 0.8)
    name, white = label["window"], (0.7, 0.7, 0.68)
    tint = np.array([0.8, 0.9, 1.0]) * rng.uniform(0.7, 1)
    parts = [
        primitives(
            Shape.BOX,
            (0.01, 0, 0),
            (0.012, w, h),
            material=Material.GLOW,
            label=name,
            color=tint,
            param=(day, 0, 0, 0),
        ),
        primitives(
            Shape.BOX,
            [(0.02, 0, h), (0.02, 0, -h)],
            (0.03, w + 0.05, 0.04),
            label=name,
            color=white,
        ),
        primitives(
            Shape.BOX,
            [(0.02, w, 0), (0.02, -w, 0), (0.02, 0, 0)],
            (0.03, 0.04, h),
            label=name,
            color=white,
        ),
    ]
    if rng.random() < 0.5:
        color, drop = fabric(rng), rng.uniform(0, 0.8)
        y = np.array([-w - 0.1, w + 0.1])
        for i in range(5):
            at = [
                (0.08 + 0.02 * (i % 2), v + s * 0.09 * i, -drop / 2)
                for v, s in zip(y, (1, -1), strict=True)
            ]
            parts.append(
                primitives(
                    Shape.CONE,
                    at,
                    (0.05, 0.05, h + 0.1 + drop / 2),
                    label=name,
                    color=color,
                    shade=SHADE_OF_THINGS,
                )
            )
    elif rng.random() < 0.4:
        z = h - np.arange(int(h * 1.2 / 0.06)) * 0.06
        parts.append(
            primitives(
                Shape.BOX,
                np.stack([0 * z + 0.05, 0 * z, z], axis=1),
                (0.02, w, 0.008),
                label=name,
                color=white,
                shade=SHADE_OF_THINGS,
            )
        )
    return np.concatenate(parts)


def door(rng: np.random.Generator, label: Labels) -> Rows:
    """A door; NYUv2's thirteen classes count it as wall."""
    color = timber(rng)
    return np.concatenate(
        [
            board((0.015, 0, 1.01), (0.02, 0.42, 1.0), color, label["wall"]),
            primitives(
                Shape.BOX,
                [(0.015, 0.46, 1.02), (0.015, -0.46, 1.02)],
                (0.03, 0.04, 1.04),
                label=label["wall"],
                color=color * 1.1,
            ),
            primitives(
                Shape.ELLIPSOID,
                (0.06, 0.36, 1.0),
                (0.03, 0.05, 0.02),
                label=label["wall"],
                color=(0.4, 0.36, 0.25),
                param=(0, 0, 0, 0.6),
            ),
        ]
    )
