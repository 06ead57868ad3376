"""Bilinear resampling with NumPy and OpenCV: images to the network's size, raw maps to full size.

Both equal `torch.nn.functional.interpolate(mode="bilinear")`, with antialias for images, up to
rounding. A separable filter is a sparse matrix per axis; its rows are multiplied in blocks, of
which each touches only the pixels below it.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from emu_perception.inference.threads import for_each

BLOCK = 16
"""Output pixels per block of a filter matrix."""

Block = tuple[slice, slice, np.ndarray]
"""Output pixels, input pixels, and the `(output, input)` float32 weights between them."""


def antialiased(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image at another size, low-pass filtered where it shrinks (triangle filter).

    Args:
        image: uint8 RGB `(H, W, 3)`.
        size: height and width.

    Returns:
        `(1, 3, h, w)` float32 in 0–255, not rounded.
    """
    height, width = size
    planes = np.stack(cv2.split(image)).astype(np.float32)
    found = np.empty((1, 3, height, width), np.float32)
    if planes.shape[1:] == size:
        found[0] = planes
        return found
    across = _filter(image.shape[1], width)

    def resample(block: Block) -> None:
        rows, source, weights = block
        part = np.matmul(weights, planes[:, source])
        for columns, below, kernel in across:
            found[0, :, rows, columns] = np.matmul(part[:, :, below], kernel.T)

    for_each(resample, _filter(image.shape[0], height))
    return found


class Upsampled:
    """Raw maps at full size, computed a band of rows at a time.

    Args:
        raw: `(N, h, w)` float32.
        size: height H and width W of the full maps.
    """

    def __init__(self, raw: np.ndarray, size: tuple[int, int]) -> None:
        count, height, width = raw.shape
        self._size = size
        if width != size[1]:
            raw = cv2.resize(
                raw.reshape(count * height, width),
                (size[1], count * height),
                interpolation=cv2.INTER_LINEAR,
            )
        self._columns = raw.reshape(count, height, size[1])

    def rows(self, first: int, last: int) -> np.ndarray:
        """`(N, last - first, W)` float32, an array of its own."""
        height = self._columns.shape[1]
        if height == self._size[0]:
            return self._columns[:, first:last].copy()
        source, weights = _between(height, self._size[0], first, last)
        return np.matmul(weights, self._columns[:, source])


@functools.lru_cache(32)
def _filter(before: int, after: int) -> tuple[Block, ...]:
    """The triangle filter of an axis, in blocks of output pixels."""
    scale = before / after
    support = max(scale, 1.0)
    matrix = np.zeros((after, before))
    bounds = []
    for index in range(after):
        centre = (index + 0.5) * scale
        low = max(math.floor(centre - support + 0.5), 0)
        high = min(math.floor(centre + support + 0.5), before)
        weights = np.maximum(1 - np.abs(np.arange(low, high) + 0.5 - centre) / support, 0)
        matrix[index, low:high] = weights / weights.sum()
        bounds.append((low, high))
    blocks = []
    for first in range(0, after, BLOCK):
        last = min(first + BLOCK, after)
        source = slice(bounds[first][0], bounds[last - 1][1])
        weights = np.ascontiguousarray(matrix[first:last, source], np.float32)
        blocks.append((slice(first, last), source, weights))
    return tuple(blocks)


@functools.lru_cache(1024)
def _between(before: int, after: int, first: int, last: int) -> tuple[slice, np.ndarray]:
    """The raw rows that some full rows lie between, and their `(full, raw)` weights."""
    position = ((np.arange(first, last) + 0.5) * before / after - 0.5).clip(0, before - 1)
    above = np.floor(position).astype(np.int64)
    below = np.minimum(above + 1, before - 1)
    start, stop = int(above[0]), int(below[-1]) + 1
    weights = np.zeros((last - first, stop - start), np.float32)
    index = np.arange(last - first)
    weights[index, above - start] += (1 - (position - above)).astype(np.float32)
    weights[index, below - start] += (position - above).astype(np.float32)
    return slice(start, stop), weights
