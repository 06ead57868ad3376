"""Models of a room's furniture: the back at x = 0, depth towards +x, width along y, on z = 0."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from emu_perception.training.scenes.primitives import (
    CENTRE,
    Cutout,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
)

Labels = Mapping[str, int]
_SHADE = 0.9


def _timber(rng: np.random.Generator) -> np.ndarray:
    brown = np.array([0.30, 0.19, 0.10]) * rng.uniform(0.25, 1.7)
    return brown if rng.random() < 0.7 else np.full(3, rng.uniform(0.03, 0.75)) * rng.uniform(0.95, 1.05, 3)


def _fabric(rng: np.random.Generator) -> np.ndarray:
    grey = np.full(3, rng.uniform(0.05, 0.7))
    return np.clip(grey * (1 + rng.normal(0, 0.15 if rng.random() < 0.6 else 0.5, 3)), 0.01, 0.85)


def _board(centre: object, half: object, color: np.ndarray, label: int, **more: object) -> Rows:
    return primitives(
        Shape.BOX, centre, half, material=Material.WOOD, color=color, label=label, shade=_SHADE,
        param=(0.45, 0, 0, 0), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _soft(rng: np.random.Generator, centre: object, half: object, color: np.ndarray, label: int) -> Rows:
    return primitives(
        Shape.BOX, centre, half, material=Material.PATTERN, color=color, color2=color * rng.uniform(0.75, 1.1, 3),  # type: ignore[arg-type]
        label=label, shade=_SHADE, seed=rng.uniform(0, 50), param=(rng.uniform(1.5, 9), 0, 0, 0),
    )  # fmt: skip


def _legs(width: float, depth: float, height: float, color: np.ndarray, label: int, radius: float = 0.025) -> Rows:
    foot = [(x, y, 0) for x in (0.05, depth - 0.05) for y in (-width / 2 + 0.05, width / 2 - 0.05)]
    top = [(x, y, height) for x, y, _ in foot]
    return limbs(foot, top, radius, radius, label=label, color=color, shade=_SHADE)


def bed(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A bed with its head against the wall. Returns rows, width, depth."""
    width, length, high = rng.uniform(0.9, 2.0), rng.uniform(1.95, 2.2), rng.uniform(0.4, 0.65)
    cover, timber = _fabric(rng), _timber(rng)
    parts = [
        _board((0.04, 0, high * 0.9), (0.04, width / 2, high * 0.9), timber, label["bed"]),
        _board((length / 2, 0, 0.2), (length / 2, width / 2, 0.1), timber, label["bed"]),
        _soft(rng, (length / 2 + 0.03, 0, high * 0.5 + 0.15), (length / 2 - 0.05, width / 2 + 0.02, high * 0.5 - 0.1), cover, label["bed"]),
        _soft(rng, (0.35, 0, high + 0.06), (0.32, width / 2 - 0.02, 0.05), np.full(3, 0.7), label["bed"]),
    ]  # fmt: skip
    for y in np.linspace(-width / 4, width / 4, 2 if width > 1.2 else 1):
        pillow = primitives(Shape.ELLIPSOID, (0.3, y, high + 0.12), (0.22, 0.33, 0.11), label=label["objects"],
                            color=_fabric(rng) * 0.5 + 0.35, shade=_SHADE)  # fmt: skip
        parts.append(pillow)
    return np.concatenate(parts), width, length


def sofa(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A sofa or armchair."""
    width, depth, seat = rng.uniform(0.85, 2.4), rng.uniform(0.8, 1.0), rng.uniform(0.36, 0.46)
    color, back = _fabric(rng), rng.uniform(0.7, 0.95)
    name = label["sofa"]
    count = max(1, round((width - 0.3) / 0.65))
    y = (np.arange(count) + 0.5) / count * (width - 0.36) - (width - 0.36) / 2
    cushion = np.stack([np.full(count, depth * 0.58), y, np.full(count, seat - 0.03)], axis=1)
    parts = [
        _soft(rng, (depth / 2, 0, seat * 0.45), (depth / 2, width / 2, seat * 0.45 - 0.03), color, name),
        _soft(rng, (0.12, 0, back / 2), (0.12, width / 2, back / 2), color, name),
        _soft(rng, cushion, (depth * 0.42, (width - 0.36) / count / 2 - 0.01, 0.08), color * 1.05, name),
    ]
    for side in (-1, 1):
        parts.append(_soft(rng, (depth / 2, side * (width / 2 - 0.09), 0.3), (depth / 2, 0.09, 0.3), color, name))
    for _ in range(rng.integers(0, 3)):
        at = (0.36, rng.uniform(-0.4, 0.4) * width, seat + 0.2)
        parts.append(primitives(Shape.ELLIPSOID, at, (0.09, 0.2, 0.2), label=label["objects"], color=_fabric(rng),
                                shade=_SHADE))  # fmt: skip
    return np.concatenate(parts), width, depth


def chair(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A dining or office chair; its back at x = 0."""
    size, seat, back = rng.uniform(0.4, 0.52), rng.uniform(0.42, 0.48), rng.uniform(0.82, 1.05)
    color = _timber(rng)
    cover = color if rng.random() < 0.5 else _fabric(rng)
    name = label["chair"]
    parts = [_soft(rng, (size / 2, 0, seat), (size / 2, size / 2, 0.03), cover, name)]
    if rng.random() < 0.25:
        parts += [
            limbs([(size / 2, 0, 0.1)], [(size / 2, 0, seat)], 0.03, 0.03, label=name, color=(0.03,) * 3, shade=_SHADE),
            primitives(Shape.CONE, (size / 2, 0, 0.06), (0.28, 0.28, 0.03), label=name, color=(0.03,) * 3, shade=_SHADE),
        ]
    else:
        parts.append(_legs(size, size, seat, color, name, 0.02))
    gap = rng.random() < 0.5
    low = seat + (0.16 if gap else 0.02)
    parts.append(_soft(rng, (0.03, 0, (low + back) / 2), (0.025, size / 2 * 0.95, (back - low) / 2), cover, name))
    if gap:
        post = [(0.03, y, seat) for y in (-size * 0.42, size * 0.42)]
        parts.append(limbs(post, [(x, y, back) for x, y, _ in post], 0.02, 0.02, label=name, color=color, shade=_SHADE))
    return np.concatenate(parts), size, size


def table(rng: np.random.Generator, label: Labels, low: bool = False) -> tuple[Rows, float, float]:
    """A dining table, desk or coffee table with things on it."""
    width, depth = rng.uniform(0.8, 1.8), rng.uniform(0.5, 0.95)
    height = rng.uniform(0.35, 0.5) if low else rng.uniform(0.70, 0.78)
    color = _timber(rng)
    top = _board((depth / 2, 0, height - 0.02), (depth / 2, width / 2, 0.02), color, label["table"])
    parts = [top, _legs(width, depth, height, color, label["table"], 0.03)]
    parts += things(rng, label, (0.1, depth - 0.1), (-width / 2 + 0.1, width / 2 - 0.1), height, rng.integers(1, 7))
    return np.concatenate(parts), width, depth


def things(
    rng: np.random.Generator, label: Labels, x: tuple[float, float], y: tuple[float, float], z: float, count: int
) -> list[Rows]:
    """Small objects on a surface: cups, bottles, boxes, lamps, piles of books, plants, screens."""
    parts = []
    for _ in range(count):
        at = np.array([rng.uniform(*x), rng.uniform(*y), z])
        kind = rng.choice(["cup", "box", "bowl", "books", "lamp", "plant", "bottle"])
        color = rng.uniform(0.02, 0.7, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(0.05, 0.75))
        look = {"label": label["objects"], "color": color, "shade": _SHADE}
        if kind in ("cup", "bottle"):
            radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.04, 0.06) if kind == "cup" else rng.uniform(0.1, 0.16)
            parts.append(primitives(Shape.CONE, at + (0, 0, height), (radius, radius, height), taper=rng.uniform(-0.2, 0.5), **look))
        elif kind == "box":
            half = rng.uniform(0.04, 0.18, 3)
            parts.append(primitives(Shape.BOX, at + (0, 0, half[2]), half, material=Material.PATTERN, color2=color[::-1], param=(8, 0, 0, 0), **look))
        elif kind == "bowl":
            parts.append(primitives(Shape.ELLIPSOID, at + (0, 0, 0.05), (0.11, 0.11, 0.06), **look))
        elif kind == "books":
            for i in range(rng.integers(1, 6)):
                parts.append(primitives(Shape.BOX, at + (0, 0, 0.015 + 0.03 * i), (rng.uniform(0.07, 0.1), rng.uniform(0.1, 0.14), 0.014),
                                        label=label["books"], color=rng.uniform(0.03, 0.6, 3), shade=_SHADE))  # fmt: skip
        elif kind == "lamp":
            parts.append(limbs([at], [at + (0, 0, 0.3)], 0.05, 0.02, **look))
            lit = float(rng.random() < 0.3)
            parts.append(primitives(Shape.CONE, at + (0, 0, 0.38), (0.13, 0.13, 0.1), taper=(0.4, 0.4), label=label["objects"],
                                    material=Material.GLOW, color=(0.75, 0.68, 0.5), param=(lit * 1.2, 0, 0, 0)))  # fmt: skip
        else:
            parts.append(primitives(Shape.CONE, at + (0, 0, 0.07), (0.08, 0.08, 0.07), taper=(-0.3, -0.3), **look))
            leaves = rng.normal(0, 0.08, (6, 3)) + (0, 0, 0.28)
            green = np.array([0.05, 0.12, 0.03]) * rng.uniform(0.6, 1.6)
            parts.append(primitives(Shape.ELLIPSOID, at + leaves, (0.09, 0.09, 0.1), cutout=Cutout.FOLIAGE, material=Material.FOLIAGE,
                                    label=label["objects"], color=green, color2=green * 1.5, shade=0.8, param=(40, 0.35, 0, 0)))  # fmt: skip
    return parts


def cabinet(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A wardrobe, sideboard or chest of drawers, with seams and handles."""
    width, depth = rng.uniform(0.5, 1.8), rng.uniform(0.35, 0.6)
    height = rng.uniform(0.5, 1.1) if rng.random() < 0.6 else rng.uniform(1.6, 2.2)
    color, name = _timber(rng), label["furniture"]
    parts = [_board((depth / 2, 0, height / 2), (depth / 2, width / 2, height / 2), color * 0.8, name)]
    columns, rows = max(1, round(width / 0.5)), int(rng.integers(1, 5)) if height < 1.2 else 1
    for i in range(columns):
        for j in range(rows):
            y, z = (i + 0.5) / columns * width - width / 2, (j + 0.5) / rows * (height - 0.1) + 0.05
            half = (0.012, width / columns / 2 - 0.008, (height - 0.1) / rows / 2 - 0.008)
            parts.append(_board((depth + 0.008, y, z), half, color, name, seed=i * 7.0 + j))
            parts.append(primitives(Shape.ELLIPSOID, (depth + 0.03, y + half[1] * 0.5 * (rows == 1), z), (0.015, 0.03, 0.015),
                                    label=name, color=(0.3, 0.3, 0.3), shade=_SHADE))  # fmt: skip
    if height < 1.2:
        parts += things(rng, label, (0.08, depth - 0.1), (-width / 2 + 0.1, width / 2 - 0.1), height, rng.integers(0, 5))
    return np.concatenate(parts), width, depth


def bookcase(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """Shelves with books and objects."""
    width, depth, height = rng.uniform(0.6, 1.4), rng.uniform(0.25, 0.36), rng.uniform(0.9, 2.2)
    color, name = _timber(rng), label["furniture"]
    levels = np.linspace(0.06, height - 0.02, max(3, round(height / 0.36)))
    shelf = np.stack([np.full(len(levels), depth / 2), np.zeros(len(levels)), levels], axis=1)
    parts = [
        _board(shelf, (depth / 2, width / 2, 0.012), color, name),
        _board([(depth / 2, s * width / 2, height / 2) for s in (-1, 1)], (depth / 2, 0.012, height / 2), color, name),
        _board((0.01, 0, height / 2), (0.008, width / 2, height / 2), color * 0.7, name),
    ]
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        kind, share = rng.random(), rng.uniform(0.4, 0.98)
        if kind < 0.75:
            tall = (high - low) * rng.uniform(0.35, 0.45)
            parts.append(primitives(Shape.BOX, (depth * 0.45, -width / 2 * (1 - share), low + 0.012 + tall), (depth * 0.38, width / 2 * share - 0.02, tall),
                                    material=Material.BOOKS, label=label["books"], seed=rng.uniform(0, 50), shade=0.7,
                                    param=(rng.uniform(0.018, 0.04), 0, 0, 0)))  # fmt: skip
        elif kind < 0.9:
            parts += things(rng, label, (depth * 0.3, depth * 0.7), (-width * 0.35, width * 0.35), low + 0.012, 1)
    return np.concatenate(parts), width, depth


def television(rng: np.random.Generator, label: Labels) -> tuple[Rows, float, float]:
    """A screen on a low cabinet."""
    rows, width, depth = cabinet(rng, label)
    height = float(rng.uniform(0.4, 0.6))
    stand = _board((depth / 2, 0, height / 2), (depth / 2, width / 2, height / 2), _timber(rng), label["furniture"])
    w = min(width / 2 * 0.95, rng.uniform(0.3, 0.7))
    h = w * rng.uniform(0.56, 0.75)
    on = float(rng.random() < 0.3)
    parts = [
        stand,
        primitives(Shape.BOX, (depth / 2, 0, height + h + 0.05), (0.03, w + 0.03, h + 0.03), label=label["tv"], color=(0.02,) * 3, shade=_SHADE),
        primitives(Shape.BOX, (depth / 2 + 0.03, 0, height + h + 0.05), (0.004, w, h), label=label["tv"],
                   material=Material.PATTERN if on else Material.GLASS, color=(0.1, 0.2, 0.4) if on else (0.012,) * 3,
                   color2=(0.7, 0.6, 0.4), seed=rng.uniform(0, 50), param=(2, 0, 0, 0), shade=_SHADE),
    ]  # fmt: skip
    return np.concatenate(parts), width, depth


def picture(rng: np.random.Generator, label: Labels) -> Rows:
    """A framed picture on the wall, its centre at the origin's height."""
    w, h = rng.uniform(0.12, 0.6), rng.uniform(0.12, 0.45)
    frame = primitives(Shape.BOX, (0.012, 0, 0), (0.012, w, h), label=label["picture"], color=_timber(rng))
    inside = primitives(Shape.BOX, (0.022, 0, 0), (0.006, w - 0.03, h - 0.03), material=Material.PATTERN, label=label["picture"],
                        color=rng.uniform(0.02, 0.8, 3), color2=rng.uniform(0.02, 0.8, 3), seed=rng.uniform(0, 80),
                        param=(rng.uniform(2, 9), 0, 0, 0))  # fmt: skip
    return np.concatenate([frame, inside])


def window(rng: np.random.Generator, label: Labels, day: float) -> Rows:
    """A window in the wall with a frame and perhaps curtains or blinds; `day` is the light outside."""
    w, h = rng.uniform(0.4, 1.1), rng.uniform(0.4, 0.8)
    name, white = label["window"], (0.7, 0.7, 0.68)
    tint = np.array([0.8, 0.9, 1.0]) * rng.uniform(0.7, 1)
    parts = [
        primitives(Shape.BOX, (0.01, 0, 0), (0.012, w, h), material=Material.GLOW, label=name, color=tint, param=(day, 0, 0, 0)),
        primitives(Shape.BOX, [(0.02, 0, h), (0.02, 0, -h)], (0.03, w + 0.05, 0.04), label=name, color=white),
        primitives(Shape.BOX, [(0.02, w, 0), (0.02, -w, 0), (0.02, 0, 0)], (0.03, 0.04, h), label=name, color=white),
    ]  # fmt: skip
    if rng.random() < 0.5:
        color, drop = _fabric(rng), rng.uniform(0, 0.8)
        y = np.array([-w - 0.1, w + 0.1])
        for i in range(5):
            at = [(0.08 + 0.02 * (i % 2), v + s * 0.09 * i, -drop / 2) for v, s in zip(y, (1, -1), strict=True)]
            parts.append(primitives(Shape.CONE, at, (0.05, 0.05, h + 0.1 + drop / 2), label=name, color=color, shade=_SHADE))
    elif rng.random() < 0.4:
        z = h - np.arange(int(h * 1.2 / 0.06)) * 0.06
        parts.append(primitives(Shape.BOX, np.stack([0 * z + 0.05, 0 * z, z], axis=1), (0.02, w, 0.008), label=name, color=white, shade=_SHADE))
    return np.concatenate(parts)


def door(rng: np.random.Generator, label: Labels) -> Rows:
    """A door; NYUv2's thirteen classes count it as wall."""
    color = _timber(rng)
    return np.concatenate(
        [
            _board((0.015, 0, 1.01), (0.02, 0.42, 1.0), color, label["wall"]),
            primitives(Shape.BOX, [(0.015, 0.46, 1.02), (0.015, -0.46, 1.02)], (0.03, 0.04, 1.04), label=label["wall"], color=color * 1.1),
            primitives(Shape.ELLIPSOID, (0.06, 0.36, 1.0), (0.03, 0.05, 0.02), label=label["wall"], color=(0.4, 0.36, 0.25), param=(0, 0, 0, 0.6)),
        ]
    )  # fmt: skip


def dining_set(rng: np.random.Generator, label: Labels) -> list[tuple[Rows, tuple[float, float, float], float]]:
    """A table and its chairs round the origin: rows, position, yaw of each."""
    rows, width, depth = table(rng, label)
    rows[:, CENTRE.start] -= depth / 2
    parts = [(rows, (0.0, 0.0, 0.0), 0.0)]
    for side in (-1, 1):
        for y in np.linspace(-width / 4, width / 4, 2 if width > 1.1 else 1):
            if rng.random() < 0.8:
                model, _, size = chair(rng, label)
                at = side * (depth / 2 + size * rng.uniform(0.5, 1.1))
                parts.append((model, (at, float(y), 0.0), (np.pi if side > 0 else 0.0) + rng.normal(0, 0.2)))
    return parts

