"""Analytic primitives of a scene, held as rows of one float32 array.

Every primitive is a unit shape under an affine map: `axes` (rows: local axes in the world) and
`half` (half extents along them). The world is x right, y forward, z up, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows: TypeAlias = NDArray[np.float32]


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


_UPRIGHT = np.eye(3, dtype=np.float32).ravel()


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
    centre, half = np.asarray(centre, np.float32), np.asarray(half, np.float32)
    count = max(c.shape[0] if c.ndim == 2 else 1 for c in (centre, half))
    rows = np.zeros((count, COLUMNS), np.float32)
    rows[:, SHAPE], rows[:, CUTOUT], rows[:, MATERIAL] = shape, cutout, material
    rows[:, LABEL], rows[:, SEED], rows[:, SHADE] = label, seed, shade
    rows[:, CENTRE], rows[:, HALF], rows[:, TAPER] = centre, half, taper
    rows[:, AXES] = _UPRIGHT if axes is None else np.reshape(axes, (-1, 9))
    rows[:, COLOR] = color
    rows[:, COLOR2] = color if color2 is None else color2
    rows[:, PARAM] = param
    return rows


def limbs(
    start: ArrayLike, end: ArrayLike, radius: ArrayLike, end_radius: ArrayLike, **more: Any
) -> Rows:
    """Tapered cylinders from `start` to `end`, `(3,)` or `(N, 3)`, radii in metres."""
    start, end = np.asarray(start, np.float32), np.asarray(end, np.float32)
    end_radius = np.asarray(end_radius)
    along = np.atleast_2d(end - start)
    length = np.sqrt((along**2).sum(1))
    x, y, z = (along / np.maximum(length, 1e-6)[:, None]).T
    # Any two axes across will do: turn z about the horizontal axis to the limb (Frisvad 2012).
    sign = np.where(z < 0, -1.0, 1.0)
    a = -1 / (sign + z)
    b = x * y * a
    axes = np.stack(
        [1 + sign * x * x * a, sign * b, -sign * x, b, sign + y * y * a, -y, x, y, z], axis=1
    )
    half = np.empty((len(along), 3))
    half[:, 0] = half[:, 1] = radius
    half[:, 2] = length / 2
    taper = np.repeat((1 - end_radius / half[:, 0])[:, None], 2, axis=1)
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
