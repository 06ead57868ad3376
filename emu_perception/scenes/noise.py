"""Lattice noise from fixed tables: the same world point always looks the same."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_PLANE = 256
_VOLUME = 64


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    generator = np.random.default_rng(20240210)
    plane = generator.random((1, 4, _PLANE, _PLANE), np.float32)
    plane = np.concatenate([plane, plane[:, :, :1]], axis=2)
    plane = np.concatenate([plane, plane[..., :1]], axis=3)
    # Fractal volume: white noise with a 1/f^1.1 spectrum, ranks spread evenly over 0-1.
    frequency = np.fft.fftfreq(_VOLUME) * _VOLUME
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(frequency, frequency, frequency)))
    spectrum = (
        np.fft.fftn(generator.standard_normal((_VOLUME,) * 3)) / np.maximum(radius, 3.0) ** 1.1
    )
    ranks = np.fft.ifftn(spectrum).real.ravel().argsort().argsort()
    volume = (ranks / ranks.size).astype(np.float32)
    uniform = generator.random(65536, np.float32)
    return tuple(torch.from_numpy(t).to(device) for t in (plane, volume, uniform))  # type: ignore[return-value]


def smooth(x: Tensor, y: Tensor) -> Tensor:
    """`(4, N)` independent value noises in 0-1 at lattice coordinates `x`, `y`, each `(N,)`."""
    table = _tables(x.device)[0]
    grid = torch.stack([x, y], dim=-1).remainder(_PLANE) * (2.0 / _PLANE) - 1.0
    return F.grid_sample(table, grid[None, None], align_corners=True, mode="bilinear")[0, :, 0]


def fractal(x: Tensor, y: Tensor, footprint: Tensor, octaves: int = 4) -> Tensor:
    """`(4, N)` fractal noise around 0, about -1 to 1; octaves finer than the footprint fade out.

    `footprint` is a pixel's size in lattice units of the first octave.
    """
    total = torch.zeros((4, x.shape[0]), device=x.device)
    for octave in range(octaves):
        scale = 2.17**octave
        weight = (1.3 - footprint * scale).clamp(min=0, max=1) / (1.6**octave)
        seen = (weight > 0).nonzero()[:, 0]
        if len(seen) == 0:
            break
        if len(seen) == len(x):
            total += weight * (smooth(x * scale + 17.3 * octave, y * scale - 9.1 * octave) - 0.5)
        else:
            u, v = x.index_select(0, seen), y.index_select(0, seen)
            value = smooth(u * scale + 17.3 * octave, v * scale - 9.1 * octave) - 0.5
            total.index_add_(1, seen, weight.index_select(0, seen) * value)
    return total


def volume(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Fractal noise in 0-1 (uniformly distributed) at cell coordinates; period 64, nearest cell."""
    mask = _VOLUME - 1
    index = x.floor().to(torch.int32).bitwise_and_(mask)
    index = (index << 6) + y.floor().to(torch.int32).bitwise_and_(mask)
    index = (index << 6) + z.floor().to(torch.int32).bitwise_and_(mask)
    return _tables(x.device)[1].index_select(0, index)


def cell(i: Tensor, j: Tensor, salt: Tensor | float = 0.0) -> Tensor:
    """A uniform number in 0-1 for each integer cell `(i, j)` and salt (floats, floored)."""
    mixed = i.floor().long() * 7919 + j.floor().long() * 104729
    mixed = mixed + torch.as_tensor(salt, device=i.device).mul(997).floor().long() * 12289
    return _tables(i.device)[2].index_select(0, (mixed ^ (mixed >> 7)) & 65535)


@cache
def _twig_tables(device: torch.device) -> Tensor:
    """`(8, 512, 512)` bool silhouettes of leafless trees."""
    generator = np.random.default_rng(7)
    masks = np.zeros((8, 512, 512), np.uint8)

    def grow(
        mask: np.ndarray, x: float, y: float, angle: float, length: float, width: float
    ) -> None:
        x1, y1 = x + length * np.sin(angle), y - length * np.cos(angle)
        points = [(round(a * 8), round(b * 8)) for a, b in ((x, y), (x1, y1))]
        cv2.line(mask, points[0], points[1], 1, max(round(width), 1), cv2.LINE_8, 3)
        if length < 9:
            return
        for _ in range(generator.integers(2, 4)):
            grow(
                mask,
                x1,
                y1,
                0.93 * angle + generator.normal(0, 0.42),
                length * generator.uniform(0.62, 0.8),
                width * 0.68,
            )

    for mask in masks:
        for _ in range(3):
            grow(mask, 256, 511, generator.normal(0, 0.3), 118, 9)
    return torch.from_numpy(masks.astype(bool)).to(device)


def twigs(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Whether the silhouette of a leafless tree covers `x`, `y` in -1 to 1 (y up, root at -1)."""
    table = _twig_tables(x.device)
    column = ((x + 1) * 256).long().clamp(0, 511)
    row = ((1 - y) * 256).long().clamp(0, 511)
    return table[seed.long() % len(table), row, column]
