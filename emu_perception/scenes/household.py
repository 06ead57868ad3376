"""Parts of furniture, and the small things that stand on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from emu_perception.scenes.primitives import (
    Cutout,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
)

Labels = Mapping[str, int]
SHADE_OF_THINGS = 0.9


def timber(rng: np.random.Generator) -> np.ndarray:
    brown = np.array([0.30, 0.19, 0.10]) * rng.uniform(0.25, 1.7)
    return (
        brown
        if rng.random() < 0.7
        else np.full(3, rng.uniform(0.03, 0.75)) * rng.uniform(0.95, 1.05, 3)
    )


def fabric(rng: np.random.Generator) -> np.ndarray:
    grey = np.full(3, rng.uniform(0.05, 0.7))
    return np.clip(grey * (1 + rng.normal(0, 0.15 if rng.random() < 0.6 else 0.5, 3)), 0.01, 0.85)


def board(centre: ArrayLike, half: ArrayLike, color: np.ndarray, label: int, **more: Any) -> Rows:
    return primitives(
        Shape.BOX,
        centre,
        half,
        material=Material.WOOD,
        color=color,
        label=label,
        shade=SHADE_OF_THINGS,
        param=(0.45, 0, 0, 0),
        **more,
    )


def soft(
    rng: np.random.Generator, centre: ArrayLike, half: ArrayLike, color: np.ndarray, label: int
) -> Rows:
    return primitives(
        Shape.BOX,
        centre,
        half,
        material=Material.PATTERN,
        color=color,
        color2=color * rng.uniform(0.75, 1.1, 3),
        label=label,
        shade=SHADE_OF_THINGS,
        seed=rng.uniform(0, 50),
        param=(rng.uniform(1.5, 9), 0, 0, 0),
    )


def legs(
    width: float, depth: float, height: float, color: np.ndarray, label: int, radius: float = 0.025
) -> Rows:
    foot = [(x, y, 0) for x in (0.05, depth - 0.05) for y in (-width / 2 + 0.05, width / 2 - 0.05)]
    top = [(x, y, height) for x, y, _ in foot]
    return limbs(foot, top, radius, radius, label=label, color=color, shade=SHADE_OF_THINGS)


def things(
    rng: np.random.Generator,
    label: Labels,
    x: tuple[float, float],
    y: tuple[float, float],
    z: float,
    count: int,
) -> list[Rows]:
    """Small objects on a surface: cups, bottles, boxes, lamps, piles of books, plants, screens."""
    parts = []
    for _ in range(count):
        at = np.array([rng.uniform(*x), rng.uniform(*y), z])
        kind = rng.choice(["cup", "box", "bowl", "books", "lamp", "plant", "bottle"])
        color = (
            rng.uniform(0.02, 0.7, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(0.05, 0.75))
        )
        look: dict[str, Any] = {"label": label["objects"], "color": color, "shade": SHADE_OF_THINGS}
        if kind in ("cup", "bottle"):
            radius, height = (
                rng.uniform(0.03, 0.05),
                rng.uniform(0.04, 0.06) if kind == "cup" else rng.uniform(0.1, 0.16),
            )
            parts.append(
                primitives(
                    Shape.CONE,
                    at + np.array((0, 0, height)),
                    (radius, radius, height),
                    taper=rng.uniform(-0.2, 0.5),
                    **look,
                )
            )
        elif kind == "box":
            half = rng.uniform(0.04, 0.18, 3)
            parts.append(
                primitives(
                    Shape.BOX,
                    at + np.array((0, 0, half[2])),
                    half,
                    material=Material.PATTERN,
                    color2=color[::-1],
                    param=(8, 0, 0, 0),
                    **look,
                )
            )
        elif kind == "bowl":
            parts.append(
                primitives(Shape.ELLIPSOID, at + np.array((0, 0, 0.05)), (0.11, 0.11, 0.06), **look)
            )
        elif kind == "books":
            for i in range(rng.integers(1, 6)):
                parts.append(
                    primitives(
                        Shape.BOX,
                        at + np.array((0, 0, 0.015 + 0.03 * i)),
                        (rng.uniform(0.07, 0.1), rng.uniform(0.1, 0.14), 0.014),
                        label=label["books"],
                        color=rng.uniform(0.03, 0.6, 3),
                        shade=SHADE_OF_THINGS,
                    )
                )
        elif kind == "lamp":
            parts.append(limbs([at], [at + np.array((0, 0, 0.3))], 0.05, 0.02, **look))
            lit = float(rng.random() < 0.3)
            parts.append(
                primitives(
                    Shape.CONE,
                    at + np.array((0, 0, 0.38)),
                    (0.13, 0.13, 0.1),
                    taper=(0.4, 0.4),
                    label=label["objects"],
                    material=Material.GLOW,
                    color=(0.75, 0.68, 0.5),
                    param=(lit * 1.2, 0, 0, 0),
                )
            )
        else:
            parts.append(
                primitives(
                    Shape.CONE,
                    at + np.array((0, 0, 0.07)),
                    (0.08, 0.08, 0.07),
                    taper=(-0.3, -0.3),
                    **look,
                )
            )
            leaves = rng.normal(0, 0.08, (6, 3)) + np.array((0, 0, 0.28))
            green = np.array([0.05, 0.12, 0.03]) * rng.uniform(0.6, 1.6)
            parts.append(
                primitives(
                    Shape.ELLIPSOID,
                    at + leaves,
                    (0.09, 0.09, 0.1),
                    cutout=Cutout.FOLIAGE,
                    material=Material.FOLIAGE,
                    label=label["objects"],
                    color=green,
                    color2=green * 1.5,
                    shade=0.8,
                    param=(40, 0.35, 0, 0),
                )
            )
    return parts
