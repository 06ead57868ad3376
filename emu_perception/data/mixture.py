"""Several data sets as one, in fixed proportions, each with the labels it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from emu_perception.data.dataset import Dataset, Problem
from emu_perception.data.randomness import SharedEpoch
from emu_perception.data.sample import Sample
from emu_perception.tasks import TASKS

_GOLDEN_RATIO = 0.6180339887498949


class Source(NamedTuple):
    """One data set of a mixture."""

    dataset: Dataset
    proportion: float


class _Order(NamedTuple):
    epoch: int
    sources: np.ndarray
    """`(length,)`, which source each place of the epoch is drawn from."""
    items: np.ndarray
    """`(length,)`, which of its items."""


class Mixture(Dataset):
    """An epoch of samples from several data sets.

    The sources follow one another in a low-discrepancy sequence, so that every stretch of it, and
    with it every batch, has their proportions to within about one sample (see `EpochSampler`). Each
    source is shuffled anew for every round through it; a small source goes round several times in
    an epoch, a large one only in part.
    """

    ordered = True

    def __init__(self, sources: Sequence[Source], length: int, seed: int = 0) -> None:
        """
        Args:
            sources: whose label sets are the same, where they have one (see `Relabelled`).
            length: samples in an epoch.
            seed: of the order.
        """
        if not sources or any(s.proportion <= 0 or len(s.dataset) == 0 for s in sources):
            raise ValueError(
                "a mixture needs data sets that are not empty, and positive proportions"
            )
        if length < 1:
            raise ValueError(f"a mixture's epoch needs at least one sample, got {length}")
        label_sets = {s.dataset.label_set for s in sources if s.dataset.label_set is not None}
        if len(label_sets) > 1:
            names = ", ".join(sorted(label_set.name for label_set in label_sets))
            raise ValueError(f"the data sets of a mixture differ in their classes: {names}")
        self.sources = tuple(sources)
        self.length = length
        self.seed = seed
        self.label_set = next(iter(label_sets), None)
        groups = {group for s in sources for group in s.dataset.label_groups}
        self.label_groups = tuple(sorted(groups))
        self._tables = [self._group_table(s.dataset) for s in sources]
        self.sequences = any(s.dataset.sequences for s in sources)
        self.tasks = tuple(t for t in TASKS if any(t in s.dataset.tasks for s in sources))
        self._epoch = SharedEpoch()
        self._order: _Order | None = None

    def set_epoch(self, epoch: int) -> None:
        self._epoch.set(epoch)
        for source in self.sources:
            source.dataset.set_epoch(epoch)

    def order(self) -> _Order:
        """The epoch's order, a function of seed and epoch."""
        epoch = self._epoch.get()
        if self._order is None or self._order.epoch != epoch:
            self._order = self._draw(epoch)
        return self._order

    def _draw(self, epoch: int) -> _Order:
        shares = np.cumsum([source.proportion for source in self.sources])
        start = np.random.default_rng([self.seed, epoch]).random()
        places = (start + _GOLDEN_RATIO * np.arange(self.length)) % 1.0
        chosen = np.searchsorted(shares[:-1] / shares[-1], places, side="right")
        items = np.empty(self.length, np.int64)
        for number, source in enumerate(self.sources):
            mine = np.flatnonzero(chosen == number)
            count = len(source.dataset)
            rounds = [
                np.random.default_rng([self.seed, epoch, number, lap]).permutation(count)
                for lap in range(-(-len(mine) // count))
            ]
            items[mine] = np.concatenate([np.empty(0, np.int64), *rounds])[: len(mine)]
        return _Order(epoch, chosen, items)

    def _group_table(self, dataset: Dataset) -> np.ndarray | None:
        """`(256,)` uint8: a source's label ids in the mixture's coarse labels; None if equal."""
        if self.label_set is None or dataset.label_groups == self.label_groups:
            return None
        table, classes = np.arange(256, dtype=np.uint8), len(self.label_set)
        for own, group in enumerate(dataset.label_groups):
            table[classes + own] = classes + self.label_groups.index(group)
        return table

    def _find(self, index: int) -> tuple[int, int]:
        """The number of the source, and that of its sample."""
        order = self.order()
        index = range(self.length)[index]
        return int(order.sources[index]), int(order.items[index])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        source, item = self._find(index)
        sample, table = self.sources[source].dataset[item], self._tables[source]
        if table is None or sample.labels is None:
            return sample
        return replace(sample, labels=table[sample.labels])

    def name(self, index: int) -> str:
        source, item = self._find(index)
        return self.sources[source].dataset.name(item)

    def clip(self, index: int) -> str:
        source, item = self._find(index)
        return self.sources[source].dataset.clip(item)

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        for source in self.sources:
            yield from source.dataset.problems(progress)
