"""Running sums of one task."""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np

from emu_perception.evaluation import bootstrap
from emu_perception.evaluation.sums import Sums, add
from emu_perception.evaluation.units import BLOCKS, Units


class TaskSums:
    """Sums of one task: over everything, and by group for the intervals."""

    def __init__(
        self, headline: bootstrap.Headline, grouped: Collection[str] = bootstrap.GROUPED
    ) -> None:
        self.headline, self.grouped = headline, frozenset(grouped)
        self.total: Sums = {}
        self.groups = bootstrap.GroupedSums()
        self.blocks = bootstrap.BlockedSums()
        self.frames = 0

    def add(self, sums: Sums, group: int, place: int) -> dict[str, float | None]:
        """Add one frame, placed by `Units.take`, and return its own headline figures."""
        coarse = bootstrap.coarse_sums(sums, self.grouped)
        figures = self.headline(coarse)
        if "ause" in figures:
            area = figures["ause"]
            sums["image_ause"] = np.array([area or 0.0, area is not None], np.float64)
        add(self.total, sums)
        self.groups.add(group, coarse)
        self.blocks.add(place, coarse)
        self.frames += 1
        return figures

    def merge(self, other: TaskSums, groups: np.ndarray, first: int, length: int) -> None:
        """Add another's sums, placed by `Units.merge`, in blocks of a length."""
        add(self.total, other.total)
        self.groups.merge(other.groups, groups)
        blocks = copy.deepcopy(other.blocks)
        for each in (self.blocks, blocks):
            each.lengthen(length)
        self.blocks.merge(blocks, np.arange(first, BLOCKS))
        self.frames += other.frames

    def drawn(self, units: Units) -> bootstrap.GroupedSums:
        """Units that a bootstrap draws."""
        if not units.by_blocks:
            return self.groups
        self.blocks.lengthen(units.block_length)
        return self.blocks
