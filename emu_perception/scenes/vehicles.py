"""Models of cars, vans, lorries and buses: x right, y forward, z up, standing on z = 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.scenes.primitives import (
    COLOR,
    COLOR2,
    Material,
    Rows,
    Shape,
    primitives,
)

BLACK = (0.02, 0.02, 0.02)
_PAINTS = np.array(
    [
        [0.55, 0.56, 0.57],
        [0.70, 0.70, 0.68],
        [0.03, 0.03, 0.035],
        [0.10, 0.10, 0.11],
        [0.25, 0.26, 0.27],
        [0.02, 0.04, 0.14],
        [0.06, 0.12, 0.26],
        [0.30, 0.02, 0.02],
        [0.42, 0.04, 0.03],
        [0.03, 0.10, 0.05],
        [0.32, 0.28, 0.20],
        [0.05, 0.06, 0.10],
    ]
)


def _wheels(
    radius: float, width: float, track: float, places: tuple[float, ...], label: int
) -> Rows:
    centre = [(side * track, y, radius) for y in places for side in (-1, 1)]
    axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    return primitives(
        Shape.CONE,
        centre,
        (radius, radius, width / 2),
        axes=axes,
        material=Material.TYRE,
        label=label,
        color=BLACK,
        color2=(0.35, 0.35, 0.36),
        shade=0.6,
        param=(0.66, 0, 0, 0),
    )


def car(rng: np.random.Generator, label: int) -> tuple[Rows, float]:
    """A random hatchback, saloon, estate, off-roader, van, lorry or bus, and its length (m)."""
    kind = rng.choice(
        ["hatch", "saloon", "estate", "suv", "van", "truck", "bus"],
        p=[0.32, 0.24, 0.12, 0.13, 0.11, 0.04, 0.04],
    )
    color = _PAINTS[rng.integers(len(_PAINTS))] * rng.uniform(0.7, 1.2)
    if rng.random() < 0.05:
        color = rng.uniform(0.02, 0.6, 3)
    seed, lit = rng.uniform(0, 100), float(rng.random() < 0.15)
    if kind in ("truck", "bus"):
        return _heavy(rng, label, kind == "bus", seed, lit)
    length, width, height = {
        "hatch": (3.9, 1.70, 1.45),
        "saloon": (4.5, 1.75, 1.42),
        "estate": (4.6, 1.76, 1.48),
        "suv": (4.5, 1.85, 1.78),
        "van": (5.0, 1.95, 2.2),
    }[kind]
    length, width, height = (v * rng.uniform(0.94, 1.08) for v in (length, width, height))
    clear = 0.19 if kind != "suv" else 0.26
    belt = {"van": 0.52, "suv": 0.56}.get(kind, 0.60) * height
    bonnet = {"hatch": 0.24, "saloon": 0.27, "estate": 0.25, "suv": 0.25, "van": 0.14}[kind]
    boot = {"hatch": 0.03, "saloon": 0.17, "estate": 0.02, "suv": 0.02, "van": 0.0}[kind]
    half_w, half_l = width / 2, length / 2
    common: dict[str, Any] = {"label": label, "color": color, "seed": seed, "shade": 0.95}
    nose = belt * 0.86
    parts = [
        # Lower body, a nose that falls a little, a bumper line that stands out.
        primitives(
            Shape.FRUSTUM,
            (0, -bonnet * length * 0.5, (clear + belt) / 2),
            (half_w, half_l - bonnet * length * 0.5, (belt - clear) / 2),
            taper=(0.07, 0.02),
            material=Material.PAINT,
            param=(lit, 0, 0, 0),
            **common,
        ),
        primitives(
            Shape.FRUSTUM,
            (0, half_l - bonnet * length * 0.52, (clear + nose) / 2),
            (half_w * 0.985, bonnet * length * 0.52, (nose - clear) / 2),
            taper=(0.12, 0.16),
            material=Material.PAINT,
            param=(lit, 0, 0, 0),
            **common,
        ),
        primitives(
            Shape.BOX,
            (0, 0, clear + 0.16),
            (half_w * 0.98, half_l * 1.015, 0.10),
            material=Material.PLAIN,
            label=label,
            color=color if rng.random() < 0.6 else (0.03, 0.03, 0.03),
            shade=0.8,
            param=(0, 0, 0, 0.4),
        ),
    ]
    front, rear = half_l - bonnet * length * 0.82, -half_l * 0.97 + boot * length
    slant = {"hatch": 0.42, "saloon": 0.62, "estate": 0.30, "suv": 0.27, "van": 0.16}[kind]
    is_van = float(kind == "van" and rng.random() < 0.7)
    parts.append(
        primitives(
            Shape.FRUSTUM,
            (0, (front + rear) / 2, (belt + height) / 2 - 0.01),
            (half_w * 0.93, (front - rear) / 2, (height - belt) / 2 + 0.02),
            taper=(0.22 if kind != "van" else 0.1, slant),
            material=Material.CABIN,
            param=(slant, is_van, 0, 0),
            **common,
        )
    )
    radius = {"suv": 0.36, "van": 0.34}.get(kind, 0.31) * rng.uniform(0.95, 1.06)
    axle = half_l * 0.60
    # Wheel arches: dark discs a little larger than the wheels.
    arches = _wheels(radius * 1.15, 0.1, half_w - 0.045, (axle, -axle), label)
    arches[:, COLOR] = arches[:, COLOR2] = 0.012
    parts += [arches, _wheels(radius, 0.22, half_w - 0.085, (axle, -axle), label)]
    mirrors = [(side * (half_w + 0.06), front - 0.35, belt + 0.06) for side in (-1, 1)]
    parts.append(
        primitives(Shape.ELLIPSOID, mirrors, (0.11, 0.07, 0.08), material=Material.PAINT, **common)
    )
    return np.concatenate(parts), length


def _heavy(
    rng: np.random.Generator, label: int, bus: bool, seed: float, lit: float
) -> tuple[Rows, float]:
    length = rng.uniform(9, 12) if bus else rng.uniform(6, 9)
    height, half_w = rng.uniform(2.9, 4.2) if bus else rng.uniform(2.8, 3.7), 1.24
    color = (
        rng.uniform(0.03, 0.6, 3)
        if bus or rng.random() < 0.5
        else np.full(3, rng.uniform(0.4, 0.7))
    )
    common: dict[str, Any] = {"label": label, "color": color, "seed": seed, "shade": 0.95}
    radius = 0.48
    if bus:
        low = rng.uniform(1.0, 1.3)
        parts = [
            primitives(
                Shape.BOX,
                (0, 0, (0.35 + low) / 2),
                (half_w, length / 2, (low - 0.35) / 2),
                material=Material.PAINT,
                param=(lit, 0, 0, 0),
                **common,
            ),
            primitives(
                Shape.FRUSTUM,
                (0, 0, (low + height) / 2),
                (half_w, length / 2, (height - low) / 2),
                material=Material.CABIN,
                taper=(0.05, 0.02),
                param=(0.02, 0, 0, 0),
                **common,
            ),
            primitives(
                Shape.BOX,
                (0, 0, (low + height) / 2 + 0.2),
                (half_w + 0.01, length / 2 * 0.9, 0.16),
                material=Material.PLAIN,
                label=label,
                color=color * 0.8,
                shade=0.95,
                param=(0, 0, 0, 0.4),
            ),
        ]
    else:
        cab = 1.9
        parts = [
            primitives(
                Shape.BOX,
                (0, -cab / 2, (1.0 + height) / 2),
                (half_w, (length - cab) / 2, (height - 1.0) / 2),
                material=Material.PATTERN if rng.random() < 0.4 else Material.PLAIN,
                label=label,
                color=np.full(3, 0.55),
                color2=color,
                seed=seed,
                shade=0.95,
                param=(0.5, 0, 0, 0.2),
            ),
            primitives(
                Shape.BOX,
                (0, 0, 0.85),
                (half_w * 0.8, length / 2, 0.15),
                label=label,
                color=BLACK,
                shade=0.5,
            ),
            primitives(
                Shape.BOX,
                (0, length / 2 - cab / 2 + 0.05, 1.0),
                (half_w * 0.97, cab / 2, 0.55),
                material=Material.PAINT,
                param=(lit, 0, 0, 0),
                **common,
            ),
            primitives(
                Shape.FRUSTUM,
                (0, length / 2 - cab / 2 + 0.05, 2.0),
                (half_w * 0.97, cab / 2, 0.5),
                material=Material.CABIN,
                taper=(0.08, 0.12),
                param=(0.1, 0, 0, 0),
                **common,
            ),
        ]
    parts.append(_wheels(radius, 0.3, half_w - 0.14, (length * 0.33, -length * 0.3), label))
    return np.concatenate(parts), length
