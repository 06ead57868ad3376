"""Partial annotation: each image keeps the labels of only some tasks.

The regimes of Li et al., "Learning Multiple Dense Prediction Tasks from Partially Annotated Data"
(CVPR 2022), Sec. 4, drawn once per seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from emu_perception.atomic import write_text
from emu_perception.data.dataset import Dataset, Wrapper
from emu_perception.data.sample import (
    DataError,
    Sample,
)
from emu_perception.tasks import TASKS

Regime = Literal["one", "random", "ratio"]


def draw_annotation(
    names: Sequence[str],
    tasks: Sequence[str],
    regime: Regime,
    seed: int,
    ratio: Sequence[float] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Which tasks each image keeps labels for.

    Args:
        names: of the images, unique.
        tasks: at least two.
        regime: `one`: one task each, equally many images per task. `random`: a number of tasks
            drawn uniformly from 1 … K − 1, then as many tasks of the K (with two tasks the same as
            one task each, drawn per image). `ratio`: one task each, in the numbers that `ratio`
            gives.
        seed: the same seed and names give the same annotation.
        ratio: of the tasks, such as (1, 9).
    """
    if len(tasks) < 2:
        raise ValueError(f"partial annotation needs at least two tasks, got {', '.join(tasks)}")
    if len(set(names)) != len(names):
        raise ValueError("partial annotation needs images with different names")
    if (regime == "ratio") != (ratio is not None):
        raise ValueError("a ratio belongs to the regime 'ratio', and only to it")
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(tasks)]))
    if regime == "random":
        return {
            name: tuple(
                tasks[i]
                for i in sorted(rng.permutation(len(tasks))[: rng.integers(1, max(len(tasks), 2))])
            )
            for name in names
        }
    if regime not in ("one", "ratio"):
        raise ValueError(f"unknown regime '{regime}': one, random or ratio")
    weights = np.asarray(ratio if ratio is not None else [1] * len(tasks), float)
    if weights.shape != (len(tasks),) or weights.min() < 0 or weights.sum() <= 0:
        raise ValueError(f"the ratio {ratio} does not give a share to each of {', '.join(tasks)}")
    ends = np.rint(np.cumsum(weights) / weights.sum() * len(names)).astype(int)
    order = rng.permutation(len(names))
    chosen = np.empty(len(names), int)
    chosen[order] = np.searchsorted(ends, np.arange(len(names)), side="right")
    return {name: (tasks[task],) for name, task in zip(names, chosen)}


class PartiallyAnnotated(Wrapper):
    """A data set whose images keep the labels of only some tasks."""

    def __init__(
        self,
        source: Dataset,
        tasks: Sequence[str],
        regime: Regime,
        *,
        seed: int = 0,
        ratio: Sequence[float] | None = None,
        path: Path | None = None,
    ) -> None:
        """
        Args:
            source: has labels for all the tasks. Its names must not change from epoch to epoch.
            tasks: that the regime divides; labels of other tasks are taken away from all images.
            regime, seed, ratio: see `draw_annotation`.
            path: JSON file to keep the annotation in. If it exists it is used as it is, and must
                have been drawn with the same arguments for the same images.

        Raises:
            ValueError: a task cannot be supervised by the source, or the arguments do not suit.
            DataError: the file at `path` belongs to something else.
        """
        super().__init__(source)
        lacking = [task for task in tasks if task not in source.tasks]
        if lacking:
            raise ValueError(
                f"the data set has no labels for {', '.join(lacking)}, "
                f"only for {', '.join(source.tasks)}"
            )
        self.tasks = tuple(tasks)
        names = [source.name(index) for index in range(len(source))]
        self.annotation = draw_annotation(names, tasks, regime, seed, ratio)
        if path is not None:
            drawn = {
                "regime": regime,
                "seed": seed,
                "tasks": list(tasks),
                "ratio": None if ratio is None else list(ratio),
            }
            self.annotation = _keep(path, drawn, self.annotation)
        self._removed = {
            name: tuple(task for task in TASKS if task not in kept)
            for name, kept in self.annotation.items()
        }

    def change(self, sample: Sample, index: int) -> Sample:
        removed = self._removed.get(sample.name)
        if removed is None:
            raise DataError(
                f"no annotation was drawn for the sample '{sample.name}': partial annotation needs "
                "a fixed set, whose samples do not change from epoch to epoch"
            )
        return sample.without(*removed)


def _keep(
    path: Path, drawn: Mapping[str, object], annotation: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The annotation of the file, or this one, written to it."""
    if not path.exists():
        write_text(path, json.dumps({**drawn, "images": annotation}, indent=1) + "\n")
        return annotation
    try:
        kept = json.loads(path.read_text())
        images = {str(name): tuple(map(str, tasks)) for name, tasks in kept["images"].items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError.at(path, f"is not an annotation file: {error!r}") from None
    for key, value in drawn.items():
        if kept.get(key) != value:
            raise DataError.at(path, f"was drawn with {key} {kept.get(key)}, not {value}")
    if images.keys() != annotation.keys():
        raise DataError.at(path, "was drawn for other images")
    return images
