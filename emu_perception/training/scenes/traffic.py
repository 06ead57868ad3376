"""Models of cars, people and bicyclists: x right, y forward, z up, standing on z = 0."""

from __future__ import annotations

import numpy as np

from emu_perception.training.scenes.primitives import (
    CENTRE,
    COLOR,
    COLOR2,
    HALF,
    Cutout,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
)

BLACK = (0.02, 0.02, 0.02)
_PAINTS = np.array(
    [
        [0.55, 0.56, 0.57], [0.70, 0.70, 0.68], [0.03, 0.03, 0.035], [0.10, 0.10, 0.11],
        [0.25, 0.26, 0.27], [0.02, 0.04, 0.14], [0.06, 0.12, 0.26], [0.30, 0.02, 0.02],
        [0.42, 0.04, 0.03], [0.03, 0.10, 0.05], [0.32, 0.28, 0.20], [0.05, 0.06, 0.10],
    ]
)  # fmt: skip
_SKIN = np.array([[0.45, 0.28, 0.20], [0.36, 0.22, 0.15], [0.20, 0.12, 0.08], [0.10, 0.06, 0.04]])


def _wheels(radius: float, width: float, track: float, places: tuple[float, ...], label: int) -> Rows:
    centre = [(side * track, y, radius) for y in places for side in (-1, 1)]
    axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    return primitives(
        Shape.CONE, centre, (radius, radius, width / 2), axes=axes, material=Material.TYRE, label=label,
        color=BLACK, color2=(0.35, 0.35, 0.36), shade=0.6, param=(0.66, 0, 0, 0),
    )  # fmt: skip


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
        "hatch": (3.9, 1.70, 1.45), "saloon": (4.5, 1.75, 1.42), "estate": (4.6, 1.76, 1.48),
        "suv": (4.5, 1.85, 1.78), "van": (5.0, 1.95, 2.2),
    }[kind]  # fmt: skip
    length, width, height = (v * rng.uniform(0.94, 1.08) for v in (length, width, height))
    clear = 0.19 if kind != "suv" else 0.26
    belt = {"van": 0.52, "suv": 0.56}.get(kind, 0.60) * height
    bonnet = {"hatch": 0.24, "saloon": 0.27, "estate": 0.25, "suv": 0.25, "van": 0.14}[kind]
    boot = {"hatch": 0.03, "saloon": 0.17, "estate": 0.02, "suv": 0.02, "van": 0.0}[kind]
    half_w, half_l = width / 2, length / 2
    common = {"label": label, "color": color, "seed": seed, "shade": 0.95}
    nose = belt * 0.86
    parts = [
        # Lower body, a nose that falls a little, a bumper line that stands out.
        primitives(
            Shape.FRUSTUM, (0, -bonnet * length * 0.5, (clear + belt) / 2),
            (half_w, half_l - bonnet * length * 0.5, (belt - clear) / 2), taper=(0.07, 0.02),
            material=Material.PAINT, param=(lit, 0, 0, 0), **common,
        ),
        primitives(
            Shape.FRUSTUM, (0, half_l - bonnet * length * 0.52, (clear + nose) / 2),
            (half_w * 0.985, bonnet * length * 0.52, (nose - clear) / 2), taper=(0.12, 0.16),
            material=Material.PAINT, param=(lit, 0, 0, 0), **common,
        ),
        primitives(
            Shape.BOX, (0, 0, clear + 0.16), (half_w * 0.98, half_l * 1.015, 0.10), material=Material.PLAIN,
            label=label, color=color if rng.random() < 0.6 else (0.03, 0.03, 0.03), shade=0.8,
            param=(0, 0, 0, 0.4),
        ),
    ]  # fmt: skip
    front, rear = half_l - bonnet * length * 0.82, -half_l * 0.97 + boot * length
    slant = {"hatch": 0.42, "saloon": 0.62, "estate": 0.30, "suv": 0.27, "van": 0.16}[kind]
    is_van = float(kind == "van" and rng.random() < 0.7)
    parts.append(
        primitives(
            Shape.FRUSTUM, (0, (front + rear) / 2, (belt + height) / 2 - 0.01),
            (half_w * 0.93, (front - rear) / 2, (height - belt) / 2 + 0.02), taper=(0.22 if kind != "van" else 0.1, slant),
            material=Material.CABIN, param=(slant, is_van, 0, 0), **common,
        )
    )  # fmt: skip
    radius = {"suv": 0.36, "van": 0.34}.get(kind, 0.31) * rng.uniform(0.95, 1.06)
    axle = half_l * 0.60
    # Wheel arches: dark discs a little larger than the wheels.
    arches = _wheels(radius * 1.15, 0.1, half_w - 0.045, (axle, -axle), label)
    arches[:, COLOR] = arches[:, COLOR2] = 0.012
    parts += [arches, _wheels(radius, 0.22, half_w - 0.085, (axle, -axle), label)]
    mirrors = [(side * (half_w + 0.06), front - 0.35, belt + 0.06) for side in (-1, 1)]
    parts.append(primitives(Shape.ELLIPSOID, mirrors, (0.11, 0.07, 0.08), material=Material.PAINT, **common))
    return np.concatenate(parts), length


def _heavy(rng: np.random.Generator, label: int, bus: bool, seed: float, lit: float) -> tuple[Rows, float]:
    length = rng.uniform(9, 12) if bus else rng.uniform(6, 9)
    height, half_w = rng.uniform(2.9, 4.2) if bus else rng.uniform(2.8, 3.7), 1.24
    color = rng.uniform(0.03, 0.6, 3) if bus or rng.random() < 0.5 else np.full(3, rng.uniform(0.4, 0.7))
    common = {"label": label, "color": color, "seed": seed, "shade": 0.95}
    radius = 0.48
    if bus:
        low = rng.uniform(1.0, 1.3)
        parts = [
            primitives(Shape.BOX, (0, 0, (0.35 + low) / 2), (half_w, length / 2, (low - 0.35) / 2),
                       material=Material.PAINT, param=(lit, 0, 0, 0), **common),
            primitives(Shape.FRUSTUM, (0, 0, (low + height) / 2), (half_w, length / 2, (height - low) / 2),
                       material=Material.CABIN, taper=(0.05, 0.02), param=(0.02, 0, 0, 0), **common),
            primitives(Shape.BOX, (0, 0, (low + height) / 2 + 0.2), (half_w + 0.01, length / 2 * 0.9, 0.16),
                       material=Material.PLAIN, label=label, color=color * 0.8, shade=0.95, param=(0, 0, 0, 0.4)),
        ]  # fmt: skip
    else:
        cab = 1.9
        parts = [
            primitives(Shape.BOX, (0, -cab / 2, (1.0 + height) / 2), (half_w, (length - cab) / 2, (height - 1.0) / 2),
                       material=Material.PATTERN if rng.random() < 0.4 else Material.PLAIN, label=label,
                       color=np.full(3, 0.55), color2=color, seed=seed, shade=0.95, param=(0.5, 0, 0, 0.2)),
            primitives(Shape.BOX, (0, 0, 0.85), (half_w * 0.8, length / 2, 0.15), label=label, color=BLACK, shade=0.5),
            primitives(Shape.BOX, (0, length / 2 - cab / 2 + 0.05, 1.0), (half_w * 0.97, cab / 2, 0.55),
                       material=Material.PAINT, param=(lit, 0, 0, 0), **common),
            primitives(Shape.FRUSTUM, (0, length / 2 - cab / 2 + 0.05, 2.0), (half_w * 0.97, cab / 2, 0.5),
                       material=Material.CABIN, taper=(0.08, 0.12), param=(0.1, 0, 0, 0), **common),
        ]  # fmt: skip
    parts.append(_wheels(radius, 0.3, half_w - 0.14, (length * 0.33, -length * 0.3), label))
    return np.concatenate(parts), length


def _clothes(rng: np.random.Generator) -> np.ndarray:
    color = rng.uniform(0.01, 0.09) * rng.uniform(0.6, 1.4, 3)
    if rng.random() < 0.35:
        color = rng.uniform(0.02, 0.5, 3) ** 1.3
    if rng.random() < 0.04:
        color = np.array([0.5, 0.75, 0.05])  # high visibility
    return color


def _head(rng: np.random.Generator, at: np.ndarray, label: int, helmet: bool = False) -> list[Rows]:
    skin = _SKIN[rng.integers(len(_SKIN))] * rng.uniform(0.8, 1.2)
    hair = (0.03, 0.02, 0.015) if rng.random() < 0.6 else rng.uniform(0.03, 0.35) * np.array([1, 0.75, 0.45])
    top = rng.uniform(0.1, 0.7, 3) if helmet else hair
    return [
        primitives(Shape.ELLIPSOID, at, (0.085, 0.10, 0.125), label=label, color=skin, shade=0.95),
        primitives(Shape.ELLIPSOID, at + (0, -0.025, 0.03), (0.094, 0.10, 0.115), label=label, color=top, shade=0.95),
        limbs(at - (0, 0, 0.22), at - (0, 0, 0.05), 0.055, 0.05, label=label, color=skin, shade=0.95),
    ]


def person(rng: np.random.Generator, label: int) -> Rows:
    """Someone who walks or stands, 1.1 to 1.95 m tall."""
    size = rng.normal(1.0, 0.06) if rng.random() < 0.9 else rng.uniform(0.62, 0.85)
    stride = rng.uniform(0.0, 0.42) * (rng.random() < 0.75) * rng.choice([-1, 1])
    build = rng.uniform(0.85, 1.25)
    top, legs = _clothes(rng), _clothes(rng)
    cloth = {"material": Material.CLOTH, "label": label, "shade": 0.95, "seed": rng.uniform(0, 50)}
    hip, shoulder = 0.90, 1.42
    parts = []
    skirt = rng.random() < 0.18
    for side in (-1, 1):
        foot = np.array([side * 0.09, side * stride, 0.04])
        knee = np.array([side * 0.10, side * stride * 0.5 + 0.06 * abs(stride), 0.48])
        joint = np.array([side * 0.10, 0, hip])
        bare = _SKIN[0] if skirt else legs
        parts += [
            limbs([joint, knee], [knee, foot], [0.105 * build, 0.08 * build], [0.075 * build, 0.05], color=bare, **cloth),
            primitives(Shape.ELLIPSOID, foot + (0, 0.06, 0.0), (0.05, 0.14, 0.05), label=label, color=BLACK, shade=0.8),
        ]
        arm = np.array([side * 0.22 * build, 0, shoulder - 0.04])
        elbow = arm + (side * 0.04, -side * stride * 0.35, -0.28)
        hand = elbow + (-side * 0.02, -side * stride * 0.4 + 0.12, -0.24)
        parts += [
            limbs([arm, elbow], [elbow, hand], [0.06 * build, 0.05], [0.05, 0.035], color=top, **cloth),
            primitives(Shape.ELLIPSOID, hand, (0.04, 0.045, 0.06), label=label, color=_SKIN[0], shade=0.95),
        ]
    parts.append(
        primitives(Shape.FRUSTUM, (0, 0, (hip + shoulder) / 2 + 0.02), (0.20 * build, 0.125 * build, 0.30),
                   taper=(-0.12, 0.05), color=top, color2=rng.uniform(0, 0.6, 3), **cloth)
    )  # fmt: skip
    parts.append(primitives(Shape.ELLIPSOID, (0, 0, shoulder - 0.02), (0.22 * build, 0.11, 0.10), color=top, **cloth))
    if skirt or rng.random() < 0.2:  # skirt or long coat
        parts.append(limbs((0, 0, 0.5), (0, 0, 1.05), 0.24 * build, 0.16 * build, color=top if not skirt else legs, **cloth))
    if rng.random() < 0.3:
        parts.append(primitives(Shape.ELLIPSOID, (0, -0.2, 1.2), (0.15, 0.10, 0.22), color=_clothes(rng), **cloth))
    elif rng.random() < 0.25:
        parts.append(primitives(Shape.BOX, (0.30, 0.05, 0.6), (0.05, 0.15, 0.16), color=rng.uniform(0.02, 0.6, 3), **cloth))
    parts += _head(rng, np.array([0, 0.02, 1.64]), label)
    rows = np.concatenate(parts)
    rows[:, CENTRE] *= size
    rows[:, HALF] *= size
    return rows


def bicyclist(rng: np.random.Generator, label: int, rider: bool = True) -> Rows:
    """A bicycle, ridden unless told otherwise."""
    frame = rng.uniform(0.01, 0.5, 3) ** 1.5
    steel = {"label": label, "color": frame, "shade": 0.9, "param": (0, 0, 0, 0.4)}
    axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    parts = [
        primitives(
            Shape.CONE, [(0, 0.52, 0.34), (0, -0.52, 0.34)], (0.345, 0.345, 0.022), axes=axes,
            cutout=Cutout.RING, label=label, color=BLACK, shade=0.9,
        )
    ]  # fmt: skip
    crank, seat, head = (0, -0.06, 0.30), (0, -0.22, 0.86), (0, 0.36, 0.90)
    hub_r, hub_f = (0, -0.52, 0.34), (0, 0.52, 0.34)
    start = [crank, crank, seat, seat, hub_r, head]
    end = [seat, (0, 0.38, 0.72), (0, 0.36, 0.80), hub_r, crank, hub_f]
    parts.append(limbs(start, end, 0.022, 0.022, **steel))
    parts.append(limbs([(-0.28, 0.36, 1.02)], [(0.28, 0.36, 1.02)], 0.018, 0.018, **steel))
    parts.append(limbs([(0, 0.36, 0.9)], [(0, 0.36, 1.02)], 0.018, 0.018, **steel))
    parts.append(primitives(Shape.ELLIPSOID, (0, -0.24, 0.92), (0.07, 0.13, 0.04), label=label, color=BLACK))
    if rng.random() < 0.3:
        parts.append(primitives(Shape.BOX, (0, 0.50, 0.92), (0.17, 0.13, 0.12), label=label, color=(0.12, 0.08, 0.05)))
    if not rider:
        return np.concatenate(parts)
    top, legs = _clothes(rng), _clothes(rng)
    cloth = {"material": Material.CLOTH, "label": label, "shade": 0.95, "seed": rng.uniform(0, 50)}
    turn, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.35)
    hip = np.array([0, -0.22, 0.98])
    chest = hip + np.array([0, np.sin(lean) * 0.52, np.cos(lean) * 0.52])
    for side in (-1, 1):
        phase = turn + (np.pi if side > 0 else 0)
        foot = np.array([side * 0.11, -0.06 + 0.17 * np.cos(phase), 0.30 + 0.17 * np.sin(phase)])
        joint = hip + (side * 0.1, 0, -0.03)
        middle = (foot + joint) / 2
        reach = np.linalg.norm(foot - joint)
        knee = middle + np.array([0, 1, 0.35]) * np.sqrt(max(0.44**2 - (reach / 2) ** 2, 0.01)) * 0.94
        arm, hand = chest + (side * 0.2, 0, -0.05), np.array([side * 0.25, 0.36, 1.05])
        elbow = (arm + hand) / 2 + (side * 0.06, -0.05, -0.06)
        parts += [
            limbs([joint, knee], [knee, foot], [0.10, 0.07], [0.07, 0.05], color=legs, **cloth),
            limbs([arm, elbow], [elbow, hand], [0.06, 0.05], [0.05, 0.04], color=top, **cloth),
            primitives(Shape.ELLIPSOID, foot + (0, 0.06, -0.02), (0.05, 0.13, 0.05), label=label, color=BLACK),
        ]
    parts.append(limbs(hip - (0, 0, 0.05), chest + (0, 0, 0.02), 0.16, 0.20, color=top, color2=top * 0.3, **cloth))
    parts.append(primitives(Shape.ELLIPSOID, chest, (0.21, 0.13, 0.11), color=top, **cloth))
    if rng.random() < 0.35:
        parts.append(primitives(Shape.ELLIPSOID, chest + (0, -0.2, -0.1), (0.15, 0.1, 0.22), color=_clothes(rng), **cloth))
    head = chest + np.array([0, 0.08 + 0.2 * lean, 0.25])
    return np.concatenate(parts + _head(rng, head, label, helmet=bool(rng.random() < 0.5)))
