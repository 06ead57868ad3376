"""Trees, conifers, bushes and hedges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emu_perception.scenes.primitives import (
    Cutout,
    Material,
    Rows,
    Shape,
    limbs,
    primitives,
    rotation_z,
)


@dataclass(frozen=True)
class Season:
    """Colours of one scene's vegetation (linear albedo) and how many trees are bare."""

    leaf: np.ndarray
    leaf2: np.ndarray
    bark: np.ndarray
    bare: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Season:
        green = np.array([0.055, 0.105, 0.028]) * rng.uniform(0.5, 1.5) * rng.uniform(0.85, 1.15, 3)
        if rng.random() < 0.12:  # autumn
            green = np.array([0.19, 0.10, 0.02]) * rng.uniform(0.7, 1.3) * rng.uniform(0.8, 1.2, 3)
        other = green * rng.uniform(0.6, 2.0) * rng.uniform(0.85, 1.15, 3)
        bark = np.array([0.10, 0.08, 0.06]) * rng.uniform(0.4, 1.4)
        return cls(green, other, bark, float(rng.choice([0.0, 0.15, 0.8], p=[0.55, 0.2, 0.25])))


def _blobs(
    rng: np.random.Generator,
    centre: np.ndarray,
    size: np.ndarray,
    label: int,
    season: Season,
    sparse: float,
    leaf: float,
    dark: np.ndarray | float,
) -> Rows:
    tone = rng.uniform(0.75, 1.25, (len(centre), 1))
    return primitives(
        Shape.ELLIPSOID,
        centre,
        size,
        material=Material.FOLIAGE,
        cutout=Cutout.FOLIAGE,
        label=label,
        color=season.leaf * tone,
        color2=season.leaf2 * tone,
        seed=rng.uniform(0, 60),
        shade=dark,
        param=(leaf, sparse, 0, 0),
    )


def tree(rng: np.random.Generator, label: int, season: Season, height: float | None = None) -> Rows:
    """A broad-leaved tree, a conifer or a bare tree of 4 to 16 m; the trunk is tree, too."""
    height = height or float(np.clip(rng.lognormal(2.05, 0.38), 3.5, 17))
    if rng.random() < season.bare:
        return _bare_tree(rng, label, season, height)
    if rng.random() < 0.15:
        return _conifer(rng, label, season, height)
    trunk = height * rng.uniform(0.16, 0.36)
    radius = height * rng.uniform(0.02, 0.032)
    spread = height * rng.uniform(0.24, 0.46)
    lean = rng.normal(0, 0.03, 2) * height
    fork = np.array([lean[0] * 0.4, lean[1] * 0.4, trunk])
    crown_height = (height - trunk * 0.85) / 2
    crown = np.array([lean[0], lean[1], height - crown_height])
    count = int(np.clip(rng.normal(26, 5), 14, 38))
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    place = direction * rng.uniform(0.25, 1.0, (count, 1)) ** 0.5
    place[:, :2] *= np.where(place[:, 2:] > 0, 1 - 0.35 * place[:, 2:], 1 + 0.2 * place[:, 2:])
    centre = crown + place * (spread * 0.78, spread * 0.78, crown_height * 0.8)
    size = spread * rng.uniform(0.26, 0.48, (count, 1)) * (1, 1, rng.uniform(0.65, 0.95))
    dark = np.clip(0.62 + 0.3 * place[:, 2] + 0.12 * np.linalg.norm(place, axis=1), 0.25, 0.98)
    main = 5
    boughs = centre[rng.permutation(count)[:main]]
    parts = [
        limbs(
            [(0, 0, -0.3)],
            fork,
            radius * 1.25,
            radius * 0.8,
            material=Material.BARK,
            label=label,
            color=season.bark,
            seed=rng.uniform(0, 9),
            shade=0.9,
        ),
        limbs(
            np.tile(fork, (main, 1)),
            boughs,
            radius * 0.6,
            radius * 0.2,
            material=Material.BARK,
            label=label,
            color=season.bark,
            shade=0.6,
        ),
        _blobs(
            rng, centre, size, label, season, rng.uniform(0.38, 0.56), rng.uniform(11, 22), dark
        ),
    ]
    return np.concatenate(parts)


def _conifer(rng: np.random.Generator, label: int, season: Season, height: float) -> Rows:
    layers = int(rng.integers(7, 12))
    level = np.linspace(0.12, 0.97, layers)
    width = height * rng.uniform(0.16, 0.24) * (1 - level) + 0.25
    ring = np.arange(layers * 3) // 3
    turn = rng.uniform(0, 2 * np.pi, layers * 3)
    reach = width[ring] * 0.45
    centre = np.stack([reach * np.cos(turn), reach * np.sin(turn), level[ring] * height], axis=1)
    size = np.stack(
        [width[ring] * 0.8, width[ring] * 0.8, np.full(layers * 3, height / layers * 0.75)], axis=1
    )
    blue = Season(season.leaf * (0.45, 0.6, 0.8), season.leaf2 * (0.5, 0.6, 0.8), season.bark, 0)
    return np.concatenate(
        [
            limbs(
                [(0, 0, -0.3)],
                [(0, 0, height * 0.9)],
                height * 0.018,
                0.03,
                material=Material.BARK,
                label=label,
                color=season.bark,
                shade=0.7,
            ),
            _blobs(
                rng,
                centre,
                size,
                label,
                blue,
                rng.uniform(0.36, 0.5),
                rng.uniform(12, 20),
                0.55 + 0.35 * level[ring],
            ),
        ]
    )


def _bare_tree(rng: np.random.Generator, label: int, season: Season, height: float) -> Rows:
    """Two crossing silhouettes of branches round a trunk."""
    angle = rng.uniform(-0.5, 0.5)
    axes = np.stack([rotation_z(angle), rotation_z(angle + 1.2), rotation_z(angle - 1.2)])
    seed = rng.integers(0, 64) + np.arange(3)
    half = (height * 0.48, 0.004, height * 0.5)
    crown = primitives(
        Shape.BOX,
        np.tile((0, 0, height * 0.5), (3, 1)),
        half,
        axes=axes,
        cutout=Cutout.TWIGS,
        material=Material.BARK,
        label=label,
        color=season.bark,
        seed=seed,
        shade=0.9,
    )
    trunk = limbs(
        [(0, 0, -0.3)],
        [(0, 0, height * 0.25)],
        height * 0.024,
        height * 0.014,
        material=Material.BARK,
        label=label,
        color=season.bark,
        shade=0.9,
    )
    return np.concatenate([trunk, crown])


def bush(rng: np.random.Generator, label: int, season: Season, size: float | None = None) -> Rows:
    """A shrub of 0.5 to 2.5 m."""
    size = size or rng.uniform(0.4, 1.3)
    count = int(rng.integers(4, 9))
    centre = rng.normal(0, 0.4, (count, 3)) * size + (0, 0, 0.62 * size)
    radius = size * rng.uniform(0.45, 0.75, (count, 1)) * (1, 1, 0.85)
    return _blobs(
        rng, centre, radius, label, season, rng.uniform(0.28, 0.45), rng.uniform(15, 28), 0.75
    )


def hedge(
    rng: np.random.Generator, label: int, season: Season, length: float, height: float
) -> Rows:
    """Clipped greenery along y, centred: a dark core with leaves on it."""
    count = max(2, int(length / 0.9))
    y = np.linspace(-length / 2, length / 2, count)
    centre = np.stack([rng.normal(0, 0.06, count), y, np.full(count, height * 0.52)], axis=1)
    size = np.stack(
        [np.full(count, 0.42), np.full(count, 0.8), np.full(count, height * 0.54)], axis=1
    )
    core = primitives(
        Shape.BOX,
        (0, 0, height * 0.47),
        (0.3, length / 2, height * 0.47),
        material=Material.FOLIAGE,
        label=label,
        color=season.leaf * 0.6,
        color2=season.leaf2 * 0.6,
        shade=0.7,
        param=(22, 0, 0, 0),
    )
    return np.concatenate(
        [core, _blobs(rng, centre, size, label, season, 0.3, rng.uniform(18, 32), 0.85)]
    )


def wood(
    rng: np.random.Generator, label: int, season: Season, length: float, height: float
) -> Rows:
    """A belt of trees along y, seen from afar, centred."""
    count = max(6, int(length / 2.2))
    y = rng.uniform(-length / 2, length / 2, count)
    top = height * rng.uniform(0.55, 1.0, count)
    radius = rng.uniform(1.8, 3.6, count)
    centre = np.stack([rng.normal(0, 1.5, count), y, top - radius * 0.8], axis=1)
    size = np.stack([radius, radius, radius * rng.uniform(0.8, 1.5, count)], axis=1)
    core = primitives(
        Shape.ELLIPSOID,
        np.stack([centre[:, 0] + 0.5, y, top * 0.4], axis=1),
        np.stack([radius, radius * 1.1, top * 0.5], axis=1),
        material=Material.FOLIAGE,
        label=label,
        cutout=Cutout.FOLIAGE,
        color=season.leaf * 0.6,
        color2=season.leaf2 * 0.6,
        shade=0.5,
        param=(8, 0.2, 0, 0),
    )
    return np.concatenate(
        [core, _blobs(rng, centre, size, label, season, 0.36, rng.uniform(7, 12), 0.75)]
    )
