"""Objects along a street that face -x: x right, y forward, z up, on z = 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.scenes.buildings import WALLS
from emu_perception.scenes.primitives import (
    Cutout,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
)

_METAL: dict[str, Any] = {"material": Material.PLAIN, "shade": 0.95}


def lamp_post(rng: np.random.Generator, label: int) -> Rows:
    """A street lamp whose arm reaches towards -x."""
    height, reach = rng.uniform(5.5, 10), rng.uniform(0.6, 2.2)
    grey = np.array([0.23, 0.24, 0.25]) * rng.uniform(0.15, 1.3)
    parts = [
        limbs(
            [(0, 0, 0), (0, 0, 1.2), (0, 0, height)],
            [(0, 0, 1.2), (0, 0, height), (-reach, 0, height + 0.35)],
            [0.11, 0.075, 0.045],
            [0.10, 0.05, 0.04],
            label=label,
            color=grey,
            **_METAL,
        ),
        primitives(
            Shape.ELLIPSOID,
            (-reach - 0.25, 0, height + 0.33),
            (0.4, 0.14, 0.09),
            label=label,
            color=grey * 1.5,
            **_METAL,
        ),
    ]
    return np.concatenate(parts)


def utility_pole(rng: np.random.Generator, label: int) -> Rows:
    """A wooden pole with a cross-arm."""
    height = rng.uniform(7, 11)
    brown = np.array([0.12, 0.09, 0.06]) * rng.uniform(0.6, 1.5)
    return np.concatenate(
        [
            limbs(
                [(0, 0, 0)],
                [(0, 0, height)],
                0.15,
                0.11,
                material=Material.BARK,
                label=label,
                color=brown,
            ),
            primitives(
                Shape.BOX, (0, 0, height - 0.6), (1.0, 0.06, 0.06), label=label, color=brown
            ),
        ]
    )


def bollard(rng: np.random.Generator, label: int) -> Rows:
    """A post of about a metre."""
    height = rng.uniform(0.8, 1.2)
    color = rng.uniform(0.01, 0.05, 3) if rng.random() < 0.7 else np.array([0.6, 0.55, 0.1])
    return limbs(
        [(0, 0, 0)],
        [(0, 0, height)],
        rng.uniform(0.05, 0.11),
        rng.uniform(0.05, 0.1),
        label=label,
        color=color,
        **_METAL,
    )


def sign_post(rng: np.random.Generator, pole: int, sign: int) -> Rows:
    """A plate or two on a post, facing the traffic that comes along +y."""
    height = rng.uniform(2.1, 3.3)
    post = limbs(
        [(0, 0, 0)], [(0, 0, height)], 0.038, 0.038, label=pole, color=(0.25, 0.26, 0.27), **_METAL
    )
    colors = np.array(
        [
            [0.7, 0.7, 0.68],
            [0.5, 0.03, 0.03],
            [0.02, 0.07, 0.35],
            [0.02, 0.18, 0.07],
            [0.65, 0.45, 0.02],
        ]
    )
    parts, top = [post], height
    for _ in range(rng.integers(1, 3)):
        style = int(rng.integers(0, 4))
        wide = rng.uniform(0.3, 0.45) if style >= 1 else rng.uniform(0.35, 0.9)
        tall = wide if style >= 1 else rng.uniform(0.18, 0.5)
        first, second = rng.permutation(5)[:2] if style < 2 else (0, 1 if rng.random() < 0.7 else 2)
        top -= tall
        shape = Shape.BOX if style < 2 else Shape.CONE
        half = (wide, 0.02, tall) if shape == Shape.BOX else (wide, tall, 0.02)
        axes = np.eye(3) if shape == Shape.BOX else np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
        plate = primitives(
            shape,
            (0, -0.06, top),
            half,
            axes=axes,
            material=Material.SIGN,
            label=sign,
            color=colors[first],
            color2=colors[second],
            seed=rng.uniform(0, 90),
            param=(style if shape == Shape.BOX else 0, 0, 0, 0),
            shade=0.95,
        )
        if shape == Shape.CONE:  # discs have their face on local z: a plain two-coloured pattern
            plate[:, 2] = Material.PATTERN
            plate[:, 31] = 2.0
            rim = plate.copy()
            plate[:, 9] -= 0.012
            plate[:, 20:22] *= 0.78
            rim[:, 2] = Material.PLAIN
            rim[:, 25:28] = colors[second]
            plate[:, 28:31] = colors[first] * 0.8
            parts.append(rim)
        parts.append(plate)
        top -= tall + 0.06
    return np.concatenate(parts)


def traffic_light(rng: np.random.Generator, pole: int, sign: int) -> Rows:
    """A signal head on a post, facing the traffic that comes along +y."""
    height = rng.uniform(2.4, 3.4)
    head = height + 0.1
    state = int(rng.integers(3))
    lamps = np.array([[0.8, 0.03, 0.02], [0.8, 0.4, 0.02], [0.03, 0.7, 0.35]])
    at = np.stack([np.zeros(3), np.full(3, -0.17), head + np.array([0.3, 0.0, -0.3])], axis=1)
    lit = np.eye(3)[state][:, None]
    glow = np.zeros((3, 4))
    glow[:, 0] = 3.0 * lit[:, 0]
    plate = primitives(
        Shape.BOX, (0, -0.03, head), (0.32, 0.015, 0.62), label=sign, color=(0.015,) * 3, **_METAL
    )
    return np.concatenate(
        [
            limbs(
                [(0, 0, 0)],
                [(0, 0, height)],
                0.065,
                0.065,
                label=pole,
                color=(0.12, 0.12, 0.12),
                **_METAL,
            ),
            primitives(
                Shape.BOX,
                (0, -0.06, head),
                (0.17, 0.11, 0.5),
                label=sign,
                color=(0.02,) * 3,
                **_METAL,
            ),
            plate,
            primitives(
                Shape.ELLIPSOID,
                at,
                (0.1, 0.03, 0.1),
                material=Material.GLOW,
                label=sign,
                color=lamps * (0.15 + 0.85 * lit),
                param=glow,
            ),
        ]
    )


def garden_wall(rng: np.random.Generator, label: int, length: float) -> Rows:
    """A wall of brick or stone."""
    height = rng.uniform(0.5, 2.1)
    color = WALLS[rng.integers(5)] * rng.uniform(0.7, 1.1)
    return primitives(
        Shape.BOX,
        (0, 0, height / 2 - 0.2),
        (0.12, length / 2, height / 2 + 0.2),
        material=Material.BRICK,
        label=label,
        color=color,
        color2=color * 0.8,
        shade=0.99,
    )


def fence(rng: np.random.Generator, label: int, length: float) -> Rows:
    """Boards, pickets or metal railings."""
    height = rng.uniform(0.8, 1.8)
    turned = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    kind = rng.choice(["boards", "pickets", "railing"])
    brown = np.array([0.16, 0.11, 0.07]) * rng.uniform(0.6, 2.0)
    common: dict[str, Any] = {"axes": turned, "label": label, "shade": 0.99}
    half = (length / 2, 0.025, height / 2)
    at = (0, 0, height / 2 + 0.03)
    if kind == "boards":
        return primitives(
            Shape.BOX,
            at,
            half,
            material=Material.WOOD,
            color=brown,
            param=(0.14, 0, 0, 0),
            **common,
        )
    color = (
        np.full(3, rng.choice([0.6, 0.015, 0.3]))
        if kind == "railing"
        else brown * rng.choice([1, 3])
    )
    pitch, bar = (0.13, 0.62) if kind == "pickets" else (rng.uniform(0.1, 0.16), 0.24)
    return primitives(
        Shape.BOX,
        at,
        half,
        cutout=Cutout.RAILING,
        color=np.minimum(color, 0.7),
        param=(pitch, bar, 0.9, 0.1),
        **common,
    )


def letter_box(rng: np.random.Generator, label: int) -> Rows:
    """A box, cabinet or bin on the pavement."""
    half = (rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.7))
    color = np.array([[0.4, 0.02, 0.02], [0.03, 0.12, 0.05], [0.2, 0.2, 0.2], [0.06, 0.06, 0.06]])[
        rng.integers(4)
    ]
    return primitives(Shape.BOX, (0, 0, half[2]), half, label=label, color=color, **_METAL)
