"""Confidence intervals by resampling images, clips or blocks of images, in constant memory.

Each frame's sums also go to one of `GROUPS` groups: frames in turn, or, where frames of one clip
resemble one another, whole clips in turn. A replicate draws groups with replacement and adds their
sums. Up to `GROUPS` images this is the bootstrap over images; beyond, over groups of images, whose
standard error is itself known to about 1/√(2·GROUPS) = 6 %.

Where there are too few clips to draw from (`units.MIN_CLIPS`), blocks of consecutive images are
drawn: up to `units.BLOCKS` of equal length (Künsch, "The Jackknife and the Bootstrap for General
Stationary Observations", 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from emu_perception.evaluation.ranking import coarsened
from emu_perception.evaluation.sums import Sums
from emu_perception.evaluation.units import BLOCKS, GROUPS, block_length

COARSENING = 16
"""How many histogram bins become one here; intervals are moved by what this changes."""

GROUPED = frozenset(
    (
        *("class_counts", "confidence_bins", "likelihood", "uncertainty_histogram"),
        *("valid", "known", "errors", "within", "gaussian"),
        *("variance_histogram", "oracle_histogram"),
        *("pavpu.image_sums", "pavpu.image_counts"),
    )
)
"""The sums that the headline figures of classes and depth are made of."""

Headline = Callable[[Sums], dict[str, float | None]]


def coarse_sums(sums: Mapping[str, np.ndarray], names: Collection[str] = GROUPED) -> Sums:
    """Return the part of a frame's sums that `GroupedSums` stores: those of these names."""
    return {
        name: coarsened(value, COARSENING) if name.endswith("histogram") else value
        for name, value in sums.items()
        if name in names
    }


class GroupedSums:
    """Coarse sums by group."""

    def __init__(self, groups: int = GROUPS) -> None:
        self.frames: np.ndarray = np.zeros(groups, np.int64)
        self.sums: Sums = {}

    def add(self, group: int, sums: Mapping[str, np.ndarray]) -> None:
        """Add the `coarse_sums` of one frame."""
        self.frames[group] += 1
        for name, value in sums.items():
            if name not in self.sums:
                self.sums[name] = np.zeros((len(self.frames), *np.shape(value)))
            self.sums[name][group] += value

    def merge(self, other: GroupedSums, groups: np.ndarray) -> None:
        """Add another's groups, its group g to the group `groups[g]`."""
        np.add.at(self.frames, groups, other.frames[: len(groups)])
        for name, value in other.sums.items():
            if name not in self.sums:
                self.sums[name] = np.zeros_like(value)
            np.add.at(self.sums[name], groups, value[: len(groups)])

    def weighted(self, weights: np.ndarray) -> Sums:
        """The sums with each group counted `weights[group]` times."""
        return {name: np.tensordot(weights, value, axes=1) for name, value in self.sums.items()}

    def resampled(self, replicates: int, seed: int) -> Iterator[Sums]:
        """Sums of `replicates` draws, with replacement, of as many groups as there are."""
        used = np.flatnonzero(self.frames)
        generator = np.random.default_rng(seed)
        for _ in range(replicates):
            drawn = generator.choice(used, len(used))
            counts = np.bincount(drawn, minlength=len(self.frames))
            yield self.weighted(counts.astype(np.float64))


class BlockedSums(GroupedSums):
    """Coarse sums by block of consecutive frames; blocks grow longer as more frames come."""

    def __init__(self) -> None:
        super().__init__(BLOCKS)
        self.length = 1

    def add(self, place: int, sums: Mapping[str, np.ndarray]) -> None:
        """Add the `coarse_sums` of one frame at its place among all frames."""
        self.lengthen(block_length(place + 1))
        super().add(place // self.length, sums)

    def lengthen(self, length: int) -> None:
        """Make neighbouring blocks one until they have so many frames."""
        while self.length < length:
            for value in (self.frames, *self.sums.values()):
                value[: BLOCKS // 2] = value[::2] + value[1::2]
                value[BLOCKS // 2 :] = 0
            self.length *= 2


def intervals(
    groups: GroupedSums,
    headline: Headline,
    figures: Mapping[str, float | None],
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of the headline figures.

    Args:
        figures: the figures from the full sums; each interval is moved by the difference between
            these and the same figures from the coarse sums.

    Returns:
        Low and high end by name. Empty with fewer than two groups; a figure that is undefined in
        some replicate is left out.
    """
    if np.count_nonzero(groups.frames) < 2:
        return {}
    coarse = headline(groups.weighted(np.ones(len(groups.frames))))
    draws = [headline(sums) for sums in groups.resampled(replicates, seed)]
    result = {}
    for name, middle in coarse.items():
        figure, values = figures.get(name), [draw[name] for draw in draws]
        if middle is not None and figure is not None and None not in values:
            low, high = _percentiles(np.array(values, np.float64) + (figure - middle), level)
            result[name] = (low, high)
    return result


def paired_intervals(
    first: GroupedSums,
    second: GroupedSums,
    headline: Headline,
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float, float]]:
    """How much larger each headline figure of `second` is than that of `first`.

    Both are resampled together, so what makes an image hard for both cancels.

    Returns:
        Difference, low and high end by name.

    Raises:
        ValueError: the two were not fed the same frames in the same order.
    """
    if not np.array_equal(first.frames, second.frames):
        raise ValueError(
            f"paired intervals need two evaluations of the same frames in the same order; these "
            f"have {first.frames.sum()} and {second.frames.sum()} frames"
            + (" in other clips" if first.frames.sum() == second.frames.sum() else "")
        )
    if np.count_nonzero(first.frames) < 2:
        return {}

    def difference(a: Sums, b: Sums) -> dict[str, float | None]:
        others = headline(b)
        return {
            name: None if value is None or (other := others[name]) is None else other - value
            for name, value in headline(a).items()
            if name in others
        }

    everything = np.ones(len(first.frames))
    point = difference(first.weighted(everything), second.weighted(everything))
    draws = [
        difference(a, b)
        for a, b in zip(first.resampled(replicates, seed), second.resampled(replicates, seed))
    ]
    result = {}
    for name, middle in point.items():
        values = [draw[name] for draw in draws]
        if middle is not None and None not in values:
            result[name] = (middle, *_percentiles(np.array(values, np.float64), level))
    return result


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
