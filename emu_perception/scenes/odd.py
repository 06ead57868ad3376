"""Things that belong to no class: for tests of uncertainty, never for training."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.scenes.primitives import (
    CENTRE,
    HALF,
    ODD,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
)


def odd_object(rng: np.random.Generator, scale: float = 1.0) -> Rows:
    """A four-legged animal, a bunch of balloons, a pile of boxes, an armchair or a lumpy thing."""
    kind = rng.choice(["animal", "balloons", "boxes", "armchair", "lumps"])
    color, other = rng.uniform(0.02, 0.8, 3), rng.uniform(0.02, 0.8, 3)
    look: dict[str, Any] = {
        "material": Material.PATTERN,
        "color": color,
        "color2": other,
        "seed": rng.uniform(0, 90),
        "param": (rng.uniform(1, 6), 0, 0, 0),
        "shade": 0.9,
    }
    size = rng.uniform(0.7, 1.6) * scale
    if kind == "animal":
        hoof = [(x, y, 0.0) for y in (-0.45, 0.45) for x in (-0.17, 0.17)]
        parts = [
            limbs(hoof, [(x, y * 0.9, 0.75) for x, y, _ in hoof], 0.06, 0.1, **look),
            primitives(Shape.ELLIPSOID, (0, 0, 0.85), (0.27, 0.68, 0.3), **look),
            limbs([(0, 0.5, 0.95)], [(0, 0.85, 1.35)], 0.17, 0.11, **look),
            primitives(Shape.ELLIPSOID, (0, 0.98, 1.4), (0.12, 0.24, 0.13), **look),
            limbs([(0, -0.62, 0.95)], [(0, -0.85, 0.45)], 0.04, 0.02, **look),
        ]
    elif kind == "balloons":
        at = rng.normal(0, 0.45, (7, 3)) + np.array((0, 0, 1.6))
        parts = [
            primitives(
                Shape.ELLIPSOID,
                p,
                (0.24, 0.24, 0.3),
                color=rng.uniform(0.05, 0.9, 3),
                param=(0, 0, 0, 0.6),
                shade=0.9,
            )
            for p in at
        ]
        parts.append(
            limbs(at, np.tile((0.0, 0.0, 0.0), (7, 1)), 0.006, 0.006, color=(0.5,) * 3, shade=0.9)
        )
    elif kind == "boxes":
        half = rng.uniform(0.15, 0.5, (5, 3))
        at = np.stack([rng.normal(0, 0.5, 5), rng.normal(0, 0.5, 5), half[:, 2]], axis=1)
        at[3:, 2] += 0.5
        parts = [primitives(Shape.BOX, at, half, **look)]
    elif kind == "armchair":
        parts = [
            primitives(
                Shape.BOX,
                [(0, 0, 0.25), (0, -0.4, 0.5)],
                [(0.45, 0.45, 0.22), (0.45, 0.12, 0.5)],
                **look,
            ),
            primitives(Shape.BOX, [(-0.4, 0, 0.35), (0.4, 0, 0.35)], (0.1, 0.45, 0.33), **look),
        ]
    else:
        centre = rng.normal(0, 0.35, (9, 3))
        centre[:, 2] = np.abs(centre[:, 2]) + 0.3
        parts = [primitives(Shape.ELLIPSOID, centre, rng.uniform(0.15, 0.5, (9, 3)), **look)]
    rows = np.concatenate(parts)
    rows[:, CENTRE] *= size
    rows[:, HALF] *= size
    rows[:, ODD] = 1.0
    return rows
