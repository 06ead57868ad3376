"""Confidence intervals by resampling images or clips, in constant memory.

Each frame's sums also go to one of `GROUPS` groups: frames in turn, or, where frames of one clip
resemble one another, whole clips. A replicate draws groups with replacement and adds their sums.
Up to `GROUPS` images this is the bootstrap over images; beyond, over groups of images, whose
standard error is itself known to about 1/√(2·GROUPS) = 6 %.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping

import numpy as np

from emu_perception.evaluation.ranking import coarsened
from emu_perception.evaluation.sums import Sums

GROUPS = 128
COARSENING = 16
"""How many histogram bins become one here; intervals are moved by what this changes."""

GROUPED = frozenset(
    (
        *("class_counts", "confidence_bins", "likelihood", "uncertainty_histogram"),
        *("valid", "known", "errors", "within", "gaussian"),
        *("variance_histogram", "oracle_histogram"),
        *("pavpu.image_sums", "pavpu.image_counts"),
        *("angles", "edge_counts", "part_counts", "saliency"),
    )
)
"""The sums that the headline figures are made of."""

Headline = Callable[[Sums], dict[str, float | None]]


def coarse_sums(sums: Mapping[str, np.ndarray]) -> Sums:
    """What `GroupedSums` keeps of a frame's sums."""
    return {
        name: coarsened(value, COARSENING) if name.endswith("histogram") else value
        for name, value in sums.items()
        if name in GROUPED
    }


def group_of(frame: int, clip: Hashable | None) -> int:
    """The group of a frame: by its clip's name if it has one, else by its number."""
    if clip is None:
        return frame % GROUPS
    return zlib.crc32(str(clip).encode()) % GROUPS


class GroupedSums:
    """Coarse sums by group."""

    def __init__(self) -> None:
        self.frames: np.ndarray = np.zeros(GROUPS, np.int64)
        self.sums: Sums = {}

    def add(self, group: int, sums: Mapping[str, np.ndarray]) -> None:
        """Add the `coarse_sums` of one frame."""
        self.frames[group] += 1
        for name, value in sums.items():
            if name not in self.sums:
                self.sums[name] = np.zeros((GROUPS, *np.shape(value)))
            self.sums[name][group] += value

    def merge(self, other: GroupedSums, shift: int) -> None:
        """Add another's groups, group g to group g + `shift`."""
        self.frames += np.roll(other.frames, shift)
        for name, value in other.sums.items():
            moved = np.roll(value, shift, axis=0)
            self.sums[name] = self.sums[name] + moved if name in self.sums else moved

    def weighted(self, weights: np.ndarray) -> Sums:
        """The sums with each group counted `weights[group]` times."""
        return {name: np.tensordot(weights, value, axes=1) for name, value in self.sums.items()}

    def resampled(self, replicates: int, seed: int) -> Iterator[Sums]:
        """Sums of `replicates` draws, with replacement, of as many groups as there are."""
        used = np.flatnonzero(self.frames)
        generator = np.random.default_rng(seed)
        for _ in range(replicates):
            drawn = generator.choice(used, len(used))
            yield self.weighted(np.bincount(drawn, minlength=GROUPS).astype(np.float64))


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
    coarse = headline(groups.weighted(np.ones(GROUPS)))
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

    everything = np.ones(GROUPS)
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
