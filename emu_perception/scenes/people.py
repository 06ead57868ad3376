"""Models of people and bicyclists: x right, y forward, z up, standing on z = 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.scenes.primitives import (
    CENTRE,
    HALF,
    Cutout,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
)

BLACK = (0.02, 0.02, 0.02)
_SKIN = np.array([[0.45, 0.28, 0.20], [0.36, 0.22, 0.15], [0.20, 0.12, 0.08], [0.10, 0.06, 0.04]])


def _clothes(rng: np.random.Generator) -> np.ndarray:
    color = rng.uniform(0.01, 0.09) * rng.uniform(0.6, 1.4, 3)
    if rng.random() < 0.35:
        color = rng.uniform(0.02, 0.5, 3) ** 1.3
    if rng.random() < 0.04:
        color = np.array([0.5, 0.75, 0.05])  # high visibility
    return color


def _head(rng: np.random.Generator, at: np.ndarray, label: int, helmet: bool = False) -> list[Rows]:
    skin = _SKIN[rng.integers(len(_SKIN))] * rng.uniform(0.8, 1.2)
    hair = (
        (0.03, 0.02, 0.015)
        if rng.random() < 0.6
        else rng.uniform(0.03, 0.35) * np.array([1, 0.75, 0.45])
    )
    top = rng.uniform(0.1, 0.7, 3) if helmet else hair
    return [
        primitives(Shape.ELLIPSOID, at, (0.085, 0.10, 0.125), label=label, color=skin, shade=0.95),
        primitives(
            Shape.ELLIPSOID,
            at + np.array((0, -0.025, 0.03)),
            (0.094, 0.10, 0.115),
            label=label,
            color=top,
            shade=0.95,
        ),
        limbs(
            at - np.array((0, 0, 0.22)),
            at - np.array((0, 0, 0.05)),
            0.055,
            0.05,
            label=label,
            color=skin,
            shade=0.95,
        ),
    ]


def person(rng: np.random.Generator, label: int) -> Rows:
    """Someone who walks or stands, 1.1 to 1.95 m tall."""
    size = rng.normal(1.0, 0.06) if rng.random() < 0.9 else rng.uniform(0.62, 0.85)
    stride = rng.uniform(0.0, 0.42) * (rng.random() < 0.75) * rng.choice([-1, 1])
    build = rng.uniform(0.85, 1.25)
    top, legs = _clothes(rng), _clothes(rng)
    cloth: dict[str, Any] = {
        "material": Material.CLOTH,
        "label": label,
        "shade": 0.95,
        "seed": rng.uniform(0, 50),
    }
    hip, shoulder = 0.90, 1.42
    parts = []
    skirt = rng.random() < 0.18
    for side in (-1, 1):
        foot = np.array([side * 0.09, side * stride, 0.04])
        knee = np.array([side * 0.10, side * stride * 0.5 + 0.06 * abs(stride), 0.48])
        joint = np.array([side * 0.10, 0, hip])
        bare = _SKIN[0] if skirt else legs
        parts += [
            limbs(
                [joint, knee],
                [knee, foot],
                [0.105 * build, 0.08 * build],
                [0.075 * build, 0.05],
                color=bare,
                **cloth,
            ),
            primitives(
                Shape.ELLIPSOID,
                foot + np.array((0, 0.06, 0.0)),
                (0.05, 0.14, 0.05),
                label=label,
                color=BLACK,
                shade=0.8,
            ),
        ]
        arm = np.array([side * 0.22 * build, 0, shoulder - 0.04])
        elbow = arm + np.array((side * 0.04, -side * stride * 0.35, -0.28))
        hand = elbow + np.array((-side * 0.02, -side * stride * 0.4 + 0.12, -0.24))
        parts += [
            limbs(
                [arm, elbow], [elbow, hand], [0.06 * build, 0.05], [0.05, 0.035], color=top, **cloth
            ),
            primitives(
                Shape.ELLIPSOID, hand, (0.04, 0.045, 0.06), label=label, color=_SKIN[0], shade=0.95
            ),
        ]
    parts.append(
        primitives(
            Shape.FRUSTUM,
            (0, 0, (hip + shoulder) / 2 + 0.02),
            (0.20 * build, 0.125 * build, 0.30),
            taper=(-0.12, 0.05),
            color=top,
            color2=rng.uniform(0, 0.6, 3),
            **cloth,
        )
    )
    parts.append(
        primitives(
            Shape.ELLIPSOID, (0, 0, shoulder - 0.02), (0.22 * build, 0.11, 0.10), color=top, **cloth
        )
    )
    if skirt or rng.random() < 0.2:  # skirt or long coat
        parts.append(
            limbs(
                (0, 0, 0.5),
                (0, 0, 1.05),
                0.24 * build,
                0.16 * build,
                color=top if not skirt else legs,
                **cloth,
            )
        )
    if rng.random() < 0.3:
        parts.append(
            primitives(
                Shape.ELLIPSOID, (0, -0.2, 1.2), (0.15, 0.10, 0.22), color=_clothes(rng), **cloth
            )
        )
    elif rng.random() < 0.25:
        parts.append(
            primitives(
                Shape.BOX,
                (0.30, 0.05, 0.6),
                (0.05, 0.15, 0.16),
                color=rng.uniform(0.02, 0.6, 3),
                **cloth,
            )
        )
    parts += _head(rng, np.array([0, 0.02, 1.64]), label)
    rows = np.concatenate(parts)
    rows[:, CENTRE] *= size
    rows[:, HALF] *= size
    return rows


def bicyclist(rng: np.random.Generator, label: int, rider: bool = True) -> Rows:
    """A bicycle, ridden by default."""
    frame = rng.uniform(0.01, 0.5, 3) ** 1.5
    steel: dict[str, Any] = {"label": label, "color": frame, "shade": 0.9, "param": (0, 0, 0, 0.4)}
    axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    parts = [
        primitives(
            Shape.CONE,
            [(0, 0.52, 0.34), (0, -0.52, 0.34)],
            (0.345, 0.345, 0.022),
            axes=axes,
            cutout=Cutout.RING,
            label=label,
            color=BLACK,
            shade=0.9,
        )
    ]
    crank, seat, head = (0, -0.06, 0.30), (0, -0.22, 0.86), (0, 0.36, 0.90)
    hub_r, hub_f = (0, -0.52, 0.34), (0, 0.52, 0.34)
    start = [crank, crank, seat, seat, hub_r, head]
    end = [seat, (0, 0.38, 0.72), (0, 0.36, 0.80), hub_r, crank, hub_f]
    parts.append(limbs(start, end, 0.022, 0.022, **steel))
    parts.append(limbs([(-0.28, 0.36, 1.02)], [(0.28, 0.36, 1.02)], 0.018, 0.018, **steel))
    parts.append(limbs([(0, 0.36, 0.9)], [(0, 0.36, 1.02)], 0.018, 0.018, **steel))
    parts.append(
        primitives(Shape.ELLIPSOID, (0, -0.24, 0.92), (0.07, 0.13, 0.04), label=label, color=BLACK)
    )
    if rng.random() < 0.3:
        parts.append(
            primitives(
                Shape.BOX,
                (0, 0.50, 0.92),
                (0.17, 0.13, 0.12),
                label=label,
                color=(0.12, 0.08, 0.05),
            )
        )
    if not rider:
        return np.concatenate(parts)
    top, legs = _clothes(rng), _clothes(rng)
    cloth: dict[str, Any] = {
        "material": Material.CLOTH,
        "label": label,
        "shade": 0.95,
        "seed": rng.uniform(0, 50),
    }
    turn, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.35)
    hip = np.array([0, -0.22, 0.98])
    chest = hip + np.array([0, np.sin(lean) * 0.52, np.cos(lean) * 0.52])
    for side in (-1, 1):
        phase = turn + (np.pi if side > 0 else 0)
        foot = np.array([side * 0.11, -0.06 + 0.17 * np.cos(phase), 0.30 + 0.17 * np.sin(phase)])
        joint = hip + np.array((side * 0.1, 0, -0.03))
        middle = (foot + joint) / 2
        reach = np.linalg.norm(foot - joint)
        knee = (
            middle + np.array([0, 1, 0.35]) * np.sqrt(max(0.44**2 - (reach / 2) ** 2, 0.01)) * 0.94
        )
        arm, hand = chest + np.array((side * 0.2, 0, -0.05)), np.array([side * 0.25, 0.36, 1.05])
        elbow = (arm + hand) / 2 + (side * 0.06, -0.05, -0.06)
        parts += [
            limbs([joint, knee], [knee, foot], [0.10, 0.07], [0.07, 0.05], color=legs, **cloth),
            limbs([arm, elbow], [elbow, hand], [0.06, 0.05], [0.05, 0.04], color=top, **cloth),
            primitives(
                Shape.ELLIPSOID,
                foot + np.array((0, 0.06, -0.02)),
                (0.05, 0.13, 0.05),
                label=label,
                color=BLACK,
            ),
        ]
    parts.append(
        limbs(
            hip - np.array((0, 0, 0.05)),
            chest + np.array((0, 0, 0.02)),
            0.16,
            0.20,
            color=top,
            color2=top * 0.3,
            **cloth,
        )
    )
    parts.append(primitives(Shape.ELLIPSOID, chest, (0.21, 0.13, 0.11), color=top, **cloth))
    if rng.random() < 0.35:
        parts.append(
            primitives(
                Shape.ELLIPSOID,
                chest + np.array((0, -0.2, -0.1)),
                (0.15, 0.1, 0.22),
                color=_clothes(rng),
                **cloth,
            )
        )
    head = chest + np.array([0, 0.08 + 0.2 * lean, 0.25])
    return np.concatenate(parts + _head(rng, head, label, helmet=bool(rng.random() < 0.5)))
