"""Analytic primitives of a scene, held as rows of one float32 array.

Every primitive is a unit shape under an affine map: `axes` (rows: local axes in the world) and
`half` (half extents along them). The world is x right, y forward, z up, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.float32]


class Shape(IntEnum):
    """Unit shapes; a taper shrinks the top (local z = 1) of FRUSTUM and CONE."""

    BOX = 0
    FRUSTUM = 1
    ELLIPSOID = 2
    CONE = 3


class Cutout(IntEnum):
    """Procedural holes in a surface."""

    NONE = 0
    FOLIAGE = 1
    RAILING = 2
    RING = 3
    TWIGS = 4


class Material(IntEnum):
    """How a surface is coloured; see `materials`."""

    PLAIN = 0
    FACADE = 1
    ROOF = 2
    FOLIAGE = 3
    BARK = 4
    PAINT = 5
    CABIN = 6
    TYRE = 7
    CLOTH = 8
    SIGN = 9
    BRICK = 10
    WOOD = 11
    PATTERN = 12
    GLOW = 13
    GLASS = 14
    BOOKS = 15


SHAPE, CUTOUT, MATERIAL, LABEL, INSTANCE, ODD, SEED, SHADE = range(8)
CENTRE = slice(8, 11)
AXES = slice(11, 20)
HALF = slice(20, 23)
TAPER = slice(23, 25)
COLOR = slice(25, 28)
COLOR2 = slice(28, 31)
PARAM = slice(31, 35)
COLUMNS = 35


def primitives(
    shape: Shape,
    centre: ArrayLike,
    half: ArrayLike,
    *,
    axes: ArrayLike | None = None,
    taper: ArrayLike = (0.0, 0.0),
    material: Material = Material.PLAIN,
    label: int = 255,
    color: ArrayLike = (0.5, 0.5, 0.5),
    color2: ArrayLike | None = None,
    cutout: Cutout = Cutout.NONE,
    seed: ArrayLike = 0.0,
    shade: ArrayLike = 1.0,
    param: ArrayLike = (0.0, 0.0, 0.0, 0.0),
) -> Rows:
    """`(N, COLUMNS)` rows; `centre`, `half` `(3,)` or `(N, 3)` and all else broadcast.

    `color` is linear albedo, `shade` a factor on ambient light (how open the place is),
    `seed` and `param` belong to the material or cutout.
    """
    centre = np.atleast_2d(np.asarray(centre, np.float32))
    half = np.atleast_2d(np.asarray(half, np.float32))
    rows = np.zeros((max(len(centre), len(half)), COLUMNS), np.float32)
    rows[:, SHAPE], rows[:, CUTOUT], rows[:, MATERIAL] = shape, cutout, material
    rows[:, LABEL], rows[:, SEED], rows[:, SHADE] = label, seed, shade
    rows[:, CENTRE], rows[:, HALF], rows[:, TAPER] = centre, half, taper
    rows[:, AXES] = np.eye(3).ravel() if axes is None else np.reshape(axes, (-1, 9))
    rows[:, COLOR] = color
    rows[:, COLOR2] = color if color2 is None else color2
    rows[:, PARAM] = param
    return rows


def limbs(start: ArrayLike, end: ArrayLike, radius: ArrayLike, end_radius: ArrayLike, **more) -> Rows:
    """Tapered cylinders from `start` to `end`, `(3,)` or `(N, 3)`, radii in metres."""
    start, end = (np.atleast_2d(np.asarray(p, np.float32)) for p in (start, end))
    start, end = np.broadcast_arrays(start, end)
    along = end - start
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = along / np.maximum(length, 1e-6)
    helper = np.where(np.abs(along[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(along, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    axes = np.stack([side, np.cross(along, side), along], axis=1)
    radius = np.broadcast_to(np.asarray(radius, np.float32), len(start))
    end_radius = np.broadcast_to(np.asarray(end_radius, np.float32), len(start))
    half = np.stack([radius, radius, length[:, 0] / 2], axis=1)
    taper = np.stack([1 - end_radius / radius] * 2, axis=1)
    return primitives(Shape.CONE, (start + end) / 2, half, axes=axes, taper=taper, **more)


def rotation_z(angle: float) -> NDArray[np.float32]:
    """3x3 rotation about the vertical, counter-clockwise seen from above."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def place(
    parts: Rows | Sequence[Rows], position: ArrayLike, yaw: float = 0.0, *, instance: int
) -> Rows:
    """A model built around the origin, turned by `yaw` and moved; one instance."""
    rows = parts.copy() if isinstance(parts, np.ndarray) else np.concatenate(list(parts))
    turn = rotation_z(yaw)
    rows[:, CENTRE] = rows[:, CENTRE] @ turn.T + np.asarray(position, np.float32)
    rows[:, AXES] = (rows[:, AXES].reshape(-1, 3, 3) @ turn.T).reshape(-1, 9)
    rows[:, INSTANCE] = instance
    return rows
