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

from emu_perception.inference import kernels
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
    found = np.empty((1, 3, height, width), np.float32)
    if image.shape[:2] == size:
        found[0] = image.transpose(2, 0, 1)
        return found
    if kernels.AVAILABLE:
        image = np.ascontiguousarray(image)
        down, over = _taps(image.shape[0], height), _taps(image.shape[1], width)
        for_each(
            lambda rows: kernels.resample_rows(image, down, over, rows, found[0]),
            row_ranges(height),
        )
        return found
    planes = np.stack(cv2.split(image)).astype(np.float32)
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
        self.columns = raw.reshape(count, height, size[1])

    def rows(self, first: int, last: int) -> np.ndarray:
        """`(N, last - first, W)` float32, an array of its own."""
        height = self.columns.shape[1]
        if height == self._size[0]:
            return self.columns[:, first:last].copy()
        source, weights = _between(height, self._size[0], first, last)
        return np.matmul(weights, self.columns[:, source])


def row_ranges(height: int, rows: int = 48) -> list[tuple[int, int]]:
    """Rows to compute at a time: the first, and the one after the last, of each part."""
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


@functools.lru_cache(32)
def _taps(before: int, after: int) -> kernels.Filter:
    """The triangle filter of an axis, as `kernels.resample_rows` takes it."""
    lines = _triangle(before, after)
    taps = max(len(weights) for _, weights in lines)
    starts = np.array([min(low, before - taps) for low, _ in lines], np.int32)
    table = np.zeros((after, taps), np.float32)
    for line, start, (low, weights) in zip(table, starts, lines):
        line[low - start : low - start + len(weights)] = weights
    return starts, table


def _triangle(before: int, after: int) -> list[tuple[int, np.ndarray]]:
    """Per output pixel the first input pixel of the triangle filter, and its weights."""
    scale = before / after
    support = max(scale, 1.0)
    lines = []
    for index in range(after):
        centre = (index + 0.5) * scale
        low = max(math.floor(centre - support + 0.5), 0)
        high = min(math.floor(centre + support + 0.5), before)
        weights = np.maximum(1 - np.abs(np.arange(low, high) + 0.5 - centre) / support, 0)
        lines.append((low, weights / weights.sum()))
    return lines


@functools.lru_cache(32)
def _filter(before: int, after: int) -> tuple[Block, ...]:
    """The triangle filter of an axis, in blocks of output pixels."""
    lines = _triangle(before, after)
    matrix = np.zeros((after, before))
    for row, (low, weights) in zip(matrix, lines):
        row[low : low + len(weights)] = weights
    bounds = [(low, low + len(weights)) for low, weights in lines]
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
