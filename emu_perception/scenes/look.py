"""Input and output of textures: surface points in, their colour and gloss out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emu_perception.scenes import noise
from emu_perception.scenes.primitives import (
    COLOR,
    COLOR2,
    HALF,
    PARAM,
    SEED,
)


@dataclass
class Samples:
    """Visible surface points of one material, `(N, …)` tensors."""

    rows: Tensor
    local: Tensor
    """Metres along the primitive's axes, from its centre."""
    unit: Tensor
    point: Tensor
    """World coordinates, metres."""
    footprint: Tensor
    """A pixel's size at the surface, metres."""

    @property
    def seed(self) -> Tensor:
        return self.rows[:, SEED]

    @property
    def color(self) -> Tensor:
        return self.rows[:, COLOR]

    @property
    def color2(self) -> Tensor:
        return self.rows[:, COLOR2]

    def param(self, index: int) -> Tensor:
        return self.rows[:, PARAM.start + index]

    def wall(self) -> tuple[Tensor, Tensor, Tensor]:
        """Across, height above the base, and whether the face is upright."""
        size = self.unit.abs()
        upright = torch.maximum(size[:, 0], size[:, 1]) >= size[:, 2] - 1e-3
        sideways = upright & (size[:, 0] > size[:, 1])
        across = torch.where(sideways, self.local[:, 1] + 31.0, self.local[:, 0])
        return across, self.local[:, 2] + self.rows[:, HALF.start + 2], upright


@dataclass
class Look:
    """Linear albedo `(N, 3)`, gloss `(N,)` 0–1 and emitted light `(N, 3)`."""

    albedo: Tensor
    gloss: Tensor
    glow: Tensor

    @classmethod
    def matte(cls, albedo: Tensor) -> Look:
        zero = torch.zeros_like(albedo)
        return cls(albedo, zero[:, 0].clone(), zero)


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return a + (b - a) * share[:, None]


def stains(s: Samples, scale: float, strength: float, octaves: int = 4) -> Tensor:
    """`(N,)` factor around 1 that varies over the surface."""
    x = (s.point[:, 0] + s.point[:, 1] * 0.7) * scale + s.seed * 13
    y = (s.point[:, 2] * 1.3 + s.point[:, 1] * 0.3) * scale
    return 1 + strength * noise.fractal(x, y, s.footprint * scale, octaves)[0]


def bricks(across: Tensor, up: Tensor, footprint: Tensor, width: float, height: float) -> Tensor:
    """`(N,)` factor on albedo: mortar lines and tone from brick to brick."""
    course = (up / height).floor()
    shift = across / width + 0.5 * course.remainder(2)
    fade = (1.5 - footprint / height * 2).clamp(0, 1)
    tone = noise.cell(shift, course) - 0.5
    line = ((up / height).remainder(1) < 0.14) | (shift.remainder(1) < 0.06)
    return 1 + fade * (0.35 * tone + 0.35 * line)
