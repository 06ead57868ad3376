"""Semantic maps of a single member, without its class scores at full size ever in memory.

A full-size `(C, H, W)` tensor costs more to write and read back than to compute. Columns are
therefore upsampled first, at the few rows of the raw output, and the rows in between are blended
and reduced to maps one band at a time, while the band is in the cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.engines.activation import SemanticActivation
from emu_perception.networks.decoder import resize

PAIRS = 8
"""Pairs of neighbouring raw rows in a band, where the height is upsampled by a whole number."""
ROWS = 32
"""Full-size rows in a band, where it is not."""


class BandedSemanticActivation(nn.Module):
    """The maps of a `SemanticActivation` from the logits of one member.

    With `m` the largest logit of a pixel, `q = l - m`, `Z = sum exp(q)` and `S = sum q exp(q)`, the
    confidence is `1 / Z` and the entropy `ln Z - S / Z`: no logarithm per class.

    Args:
        general: what it must equal; its wanted maps may not include the probabilities.
    """

    def __init__(self, general: SemanticActivation) -> None:
        super().__init__()
        self.wanted, self.size = general.wanted, general.size
        self.temperature, self.classes = general.temperature, general.classes

    @staticmethod
    def serves(wanted: Collection[str], members: int) -> bool:
        """Whether these maps of so many members can be computed this way."""
        return members == 1 and "probabilities" not in wanted

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, C, h, w)`, or `(1, 1, C, h, w)`, to `(H, W)` maps in the order of `wanted`."""
        raw = raw.flatten(0, -4).float()
        # Upsampling is linear: the temperature divides as well before it.
        logits = raw[:, : self.classes] / self.temperature
        columns = resize(logits, (int(raw.shape[-2]), self.size[1]))[0]
        if self.wanted == ("classes",):
            labels = [band.argmax(0).to(torch.uint8) for band in self._bands(columns)]
            return (self._whole(labels, columns),)
        reduced = zip(*(_reduce(band) for band in self._bands(columns)), strict=True)
        classes, confidence, expected = (self._whole(bands, columns) for bands in reduced)
        maps = {"classes": classes, "confidence": confidence}
        if "entropy" in self.wanted or "mutual_information" in self.wanted:
            maps["entropy"] = -torch.log(confidence) - expected
        if "mutual_information" in self.wanted:
            full = resize(raw[:, self.classes :], self.size)[0, 0]
            maps["mutual_information"] = torch.minimum(F.softplus(full), maps["entropy"])
        return tuple(maps[name] for name in self.wanted)

    def _factor(self, columns: Tensor) -> int:
        """By how much the height is upsampled; 0 where that is no whole number."""
        factor, remainder = divmod(self.size[0], int(columns.shape[1]))
        return factor if remainder == 0 else 0

    def _bands(self, columns: Tensor) -> Iterator[Tensor]:
        """`(C, h, W)` to bands `(C, …, W)` of upsampled rows, from the top."""
        height, rows = self.size[0], int(columns.shape[1])
        factor = self._factor(columns)
        if factor == 0:
            source = (torch.arange(height, dtype=torch.float64) + 0.5) * rows / height - 0.5
            source = source.clamp(0, rows - 1)
            above = source.floor().long()
            below = (above + 1).clamp(max=rows - 1)
            share = (source - above).float()[:, None]
            for i in range(0, height, ROWS):
                band = slice(i, i + ROWS)
                upper = columns.index_select(1, above[band])
                lower = columns.index_select(1, below[band])
                yield upper + (lower - upper) * share[band]
            return
        # Every pair of neighbours is blended with the same shares: no gathering. The edge rows are
        # repeated, so that half a pair too much comes out at the top and at the bottom.
        padded = torch.cat([columns[:, :1], columns, columns[:, -1:]], 1)[:, :, None]
        share = ((torch.arange(factor) + 0.5 * (1 - factor % 2)) / factor)[:, None]
        for i in range(0, rows + 1, PAIRS):
            end = min(rows + 1, i + PAIRS)
            upper = padded[:, i:end]
            yield upper + (padded[:, i + 1 : end + 1] - upper) * share

    def _whole(self, bands: tuple[Tensor, ...] | list[Tensor], columns: Tensor) -> Tensor:
        """The bands of a map as one `(H, W)`."""
        height, width = self.size
        rows = torch.cat([band.reshape(-1, width) for band in bands])
        start = (self._factor(columns) + 1) // 2
        return rows[start : start + height] if start else rows


def _reduce(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Class, confidence and the expected `q` along the first axis."""
    # One search for the largest and its index; a separate maximum costs as much again.
    largest, classes = torch.topk(logits, 1, dim=0)
    q = logits - largest
    weights = torch.exp(q)
    total = weights.sum(0)
    return classes[0].to(torch.uint8), 1 / total, (weights * q).sum(0) / total
