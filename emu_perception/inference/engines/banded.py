"""Semantic maps of a single member, without its class scores at full size ever in memory.

A full-size `(C, H, W)` tensor costs more to write and read back than to compute. Maps are therefore
made one band of rows at a time, while it is in the cache: the columns of the few raw rows that it
lies between are upsampled first, then the rows in between are blended and reduced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.inference.engines.activation import SemanticActivation
from emu_perception.networks.decoder import resize

PAIRS = 8
"""Pairs of neighbouring raw rows in a band, where the height is upsampled by a whole number."""
ROWS = 32
"""Full-size rows in a band, where it is not."""


class Band(NamedTuple):
    """Some rows of a map and what they are made from."""

    source: slice | np.ndarray
    """The raw rows, by their index where one is repeated."""
    blend: tuple[np.ndarray, ...]
    """For each row of the band, which of the source lie above and below it `(R,)`, int32, and the
    share of the one below `(R, 1)`, float32. Empty where the height is upsampled by a whole number:
    all pairs of neighbours then have the same shares."""
    rows: slice
    """Of the map."""
    inside: slice
    """The same, of the band's own: the first and the last may reach over the edge."""


class Bands(NamedTuple):
    """How a map's rows are cut into bands of one shape, from the top: see `cut`."""

    factor: int
    """By how much the height is upsampled; 0 where that is no whole number."""
    raw_rows: int
    """How many raw rows a band is made from."""
    rows: int
    """How many rows a band has."""
    bands: tuple[Band, ...]


def cut(raw_height: int, height: int) -> Bands:
    """The bands of a map with so many rows before and after upsampling."""
    factor, remainder = divmod(height, raw_height)
    return _cut_anywhere(raw_height, height) if remainder else _cut_by_pairs(raw_height, factor)


def _cut_by_pairs(raw_height: int, factor: int) -> Bands:
    """The edge rows are repeated: half a pair too much comes out at the top and at the bottom."""
    pairs = min(PAIRS, raw_height + 1)
    raw_rows, rows, bands = pairs + 1, pairs * factor, []
    for first in range(-1, raw_height, pairs):
        source: slice | np.ndarray = slice(first, first + raw_rows)
        if first < 0 or first + raw_rows > raw_height:
            source = np.arange(first, first + raw_rows).clip(0, raw_height - 1)
        top = first * factor + factor // 2
        target = slice(max(top, 0), min(top + rows, raw_height * factor))
        bands.append(Band(source, (), target, slice(target.start - top, target.stop - top)))
    return Bands(factor, raw_rows, rows, tuple(bands))


def _cut_anywhere(raw_height: int, height: int) -> Bands:
    """The last band overlaps the one before it."""
    rows = min(ROWS, height)
    position = ((np.arange(height) + 0.5) * raw_height / height - 0.5).clip(0, raw_height - 1)
    above = np.floor(position).astype(np.int32)
    below = np.minimum(above + 1, raw_height - 1)
    share = (position - above).astype(np.float32)
    targets = [slice(top := min(i, height - rows), top + rows) for i in range(0, height, rows)]
    raw_rows = 1 + max(int(below[t][-1] - above[t][0]) for t in targets)
    bands = []
    for target in targets:
        first = min(int(above[target][0]), raw_height - raw_rows)
        blend = (above[target] - first, below[target] - first, share[target, None])
        bands.append(Band(slice(first, first + raw_rows), blend, target, slice(0, rows)))
    return Bands(0, raw_rows, rows, tuple(bands))


class SemanticBand(nn.Module):
    """The maps of one band.

    With `m` the largest logit of a pixel, `q = l - m`, `Z = sum exp(q)` and `S = sum q exp(q)`, the
    confidence is `1 / Z` and the entropy `ln Z - S / Z`: no logarithm per class.

    Args:
        general: what bands together must equal; its wanted maps may not include the probabilities.
        bands: of its maps.
    """

    def __init__(self, general: SemanticActivation, bands: Bands) -> None:
        super().__init__()
        self.wanted, self.width, self.bands = general.wanted, general.size[1], bands
        self.temperature, self.classes = general.temperature, general.classes

    @staticmethod
    def serves(wanted: Collection[str], members: int) -> bool:
        """Whether these maps of so many members can be computed this way."""
        return members == 1 and "probabilities" not in wanted

    def forward(self, raw: Tensor, *blend: Tensor) -> tuple[Tensor, ...]:
        """`(1, C, n, w)` raw rows, and `Band.blend`, to `(R, W)` maps in the order of `wanted`."""
        # Upsampling is linear: the temperature divides as well before it.
        logits = self._upsample(raw[:, : self.classes] / self.temperature, blend)
        if self.wanted == ("classes",):
            return (logits.argmax(0).to(torch.uint8).reshape(-1, self.width),)
        classes, confidence, expected = _reduce(logits)
        maps = {"classes": classes, "confidence": confidence}
        if "entropy" in self.wanted or "mutual_information" in self.wanted:
            maps["entropy"] = -torch.log(confidence) - expected
        if "mutual_information" in self.wanted:
            predicted = F.softplus(self._upsample(raw[:, self.classes :], blend)[0])
            maps["mutual_information"] = torch.minimum(predicted, maps["entropy"])
        return tuple(maps[name].reshape(-1, self.width) for name in self.wanted)

    def _upsample(self, raw: Tensor, blend: tuple[Tensor, ...]) -> Tensor:
        """`(1, C, n, w)` to `(C, …, W)`, the R rows of the band along one axis or two."""
        columns = resize(raw, (self.bands.raw_rows, self.width))[0]
        if blend:
            above, below, share = blend
            upper, lower = columns.index_select(1, above), columns.index_select(1, below)
            return upper + (lower - upper) * share
        # No gathering: that takes a fifth of the time.
        factor = self.bands.factor
        share = ((torch.arange(factor) + 0.5 * (1 - factor % 2)) / factor)[:, None]
        upper = columns[:, :-1, None]
        return upper + (columns[:, 1:, None] - upper) * share


def assemble(
    raw: np.ndarray, bands: Bands, size: tuple[int, int], run: Callable[..., Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """The maps of all bands as whole ones.

    Args:
        raw: `(1, C, h, w)`, or `(1, 1, C, h, w)`.
        bands: of h rows to those of `size`.
        size: height and width of the maps.
        run: a `SemanticBand` on arrays; may return the same memory each time.
    """
    rows = raw.reshape(raw.shape[-4:])
    maps: list[np.ndarray] = []
    for source, blend, target, inside in bands.bands:
        parts = run(rows[:, :, source], *blend)
        maps = maps or [np.empty(size, part.dtype) for part in parts]
        for whole, part in zip(maps, parts, strict=True):
            whole[target] = part[inside]
    return maps


def _reduce(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Class, confidence and the expected `q` along the first axis."""
    # One search for the largest and its index; a separate maximum costs as much again.
    largest, classes = torch.topk(logits, 1, dim=0)
    q = logits - largest
    weights = torch.exp(q)
    total = weights.sum(0)
    return classes[0].to(torch.uint8), 1 / total, (weights * q).sum(0) / total
