"""Models of a room's furniture: the back at x = 0, depth towards +x, width along y, on z = 0."""

from __future__ import annotations

import numpy as np

from emu_perception.scenes.household import (
    SHADE_OF_THINGS,
    Labels,
    board,
    fabric,
    legs,
    soft,
    things,
    timber,
)
from emu_perception.scenes.primitives import (
    CENTRE,
    Rows,
    Shape,
    limbs,
    primitives,
)


def bed(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A bed with its head against the wall. Returns rows, width, depth."""
    width, length, high = rng.uniform(0.9, 2.0), rng.uniform(1.95, 2.2), rng.uniform(0.4, 0.65)
    cover, wood = fabric(rng), timber(rng)
    parts = [
        board((0.04, 0, high * 0.9), (0.04, width / 2, high * 0.9), wood, label["bed"]),
        board((length / 2, 0, 0.2), (length / 2, width / 2, 0.1), wood, label["bed"]),
        soft(
            rng,
            (length / 2 + 0.03, 0, high * 0.5 + 0.15),
            (length / 2 - 0.05, width / 2 + 0.02, high * 0.5 - 0.1),
            cover,
            label["bed"],
        ),
        soft(
            rng,
            (0.35, 0, high + 0.06),
            (0.32, width / 2 - 0.02, 0.05),
            np.full(3, 0.7),
            label["bed"],
        ),
    ]
    for y in np.linspace(-width / 4, width / 4, 2 if width > 1.2 else 1):
        pillow = primitives(
            Shape.ELLIPSOID,
            (0.3, y, high + 0.12),
            (0.22, 0.33, 0.11),
            label=label["objects"],
            color=fabric(rng) * 0.5 + 0.35,
            shade=SHADE_OF_THINGS,
        )
        parts.append(pillow)
    return np.concatenate(parts), width, length


def sofa(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A sofa or armchair."""
    width, depth, seat = rng.uniform(0.85, 2.4), rng.uniform(0.8, 1.0), rng.uniform(0.36, 0.46)
    color, back = fabric(rng), rng.uniform(0.7, 0.95)
    name = label["sofa"]
    count = max(1, round((width - 0.3) / 0.65))
    y = (np.arange(count) + 0.5) / count * (width - 0.36) - (width - 0.36) / 2
    cushion = np.stack([np.full(count, depth * 0.58), y, np.full(count, seat - 0.03)], axis=1)
    parts = [
        soft(
            rng,
            (depth / 2, 0, seat * 0.45),
            (depth / 2, width / 2, seat * 0.45 - 0.03),
            color,
            name,
        ),
        soft(rng, (0.12, 0, back / 2), (0.12, width / 2, back / 2), color, name),
        soft(
            rng,
            cushion,
            (depth * 0.42, (width - 0.36) / count / 2 - 0.01, 0.08),
            color * 1.05,
            name,
        ),
    ]
    for side in (-1, 1):
        parts.append(
            soft(
                rng,
                (depth / 2, side * (width / 2 - 0.09), 0.3),
                (depth / 2, 0.09, 0.3),
                color,
                name,
            )
        )
    for _ in range(rng.integers(0, 3)):
        at = (0.36, rng.uniform(-0.4, 0.4) * width, seat + 0.2)
        parts.append(
            primitives(
                Shape.ELLIPSOID,
                at,
                (0.09, 0.2, 0.2),
                label=label["objects"],
                color=fabric(rng),
                shade=SHADE_OF_THINGS,
            )
        )
    return np.concatenate(parts), width, depth


def chair(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A dining or office chair; its back at x = 0."""
    size, seat, back = rng.uniform(0.4, 0.52), rng.uniform(0.42, 0.48), rng.uniform(0.82, 1.05)
    color = timber(rng)
    cover = color if rng.random() < 0.5 else fabric(rng)
    name = label["chair"]
    parts = [soft(rng, (size / 2, 0, seat), (size / 2, size / 2, 0.03), cover, name)]
    if rng.random() < 0.25:
        parts += [
            limbs(
                [(size / 2, 0, 0.1)],
                [(size / 2, 0, seat)],
                0.03,
                0.03,
                label=name,
                color=(0.03,) * 3,
                shade=SHADE_OF_THINGS,
            ),
            primitives(
                Shape.CONE,
                (size / 2, 0, 0.06),
                (0.28, 0.28, 0.03),
                label=name,
                color=(0.03,) * 3,
                shade=SHADE_OF_THINGS,
            ),
        ]
    else:
        parts.append(legs(size, size, seat, color, name, 0.02))
    gap = rng.random() < 0.5
    low = seat + (0.16 if gap else 0.02)
    parts.append(
        soft(
            rng,
            (0.03, 0, (low + back) / 2),
            (0.025, size / 2 * 0.95, (back - low) / 2),
            cover,
            name,
        )
    )
    if gap:
        post = [(0.03, y, seat) for y in (-size * 0.42, size * 0.42)]
        parts.append(
            limbs(
                post,
                [(x, y, back) for x, y, _ in post],
                0.02,
                0.02,
                label=name,
                color=color,
                shade=SHADE_OF_THINGS,
            )
        )
    return np.concatenate(parts), size, size


def table(rng: np.random.Generator, label: Labels, low: bool = False) -> tuple[Rows, float, float]:
    """A dining table, desk or coffee table with things on it."""
    width, depth = rng.uniform(0.8, 1.8), rng.uniform(0.5, 0.95)
    height = rng.uniform(0.35, 0.5) if low else rng.uniform(0.70, 0.78)
    color = timber(rng)
    top = board((depth / 2, 0, height - 0.02), (depth / 2, width / 2, 0.02), color, label["table"])
    parts = [top, legs(width, depth, height, color, label["table"], 0.03)]
    parts += things(
        rng,
        label,
        (0.1, depth - 0.1),
        (-width / 2 + 0.1, width / 2 - 0.1),
        height,
        int(rng.integers(1, 7)),
    )
    return np.concatenate(parts), width, depth


def dining_set(
    rng: np.random.Generator, label: Labels
) -> list[tuple[Rows, tuple[float, float, float], float]]:
    """A table and its chairs round the origin: rows, position, yaw of each."""
    rows, width, depth = table(rng, label)
    rows[:, CENTRE.start] -= depth / 2
    parts = [(rows, (0.0, 0.0, 0.0), 0.0)]
    for side in (-1, 1):
        for y in np.linspace(-width / 4, width / 4, 2 if width > 1.1 else 1):
            if rng.random() < 0.8:
                model, _, size = chair(rng, label)
                at = side * (depth / 2 + size * rng.uniform(0.5, 1.1))
                parts.append(
                    (model, (at, float(y), 0.0), (np.pi if side > 0 else 0.0) + rng.normal(0, 0.2))
                )
    return parts
