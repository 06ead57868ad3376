"""Counts of what a data set holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from emu_perception.data.dataset import Dataset
from emu_perception.tasks import TASKS


@dataclass(frozen=True)
class Contents:
    """Counts over all samples of a data set."""

    images: int
    labelled: dict[str, int]
    """Task -> images with labels of it."""
    cameras: int
    """Images with known intrinsics."""
    classes: dict[str, float]
    """Class, or group of classes, -> fraction of the labelled pixels, in the order of the ids."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of the images, each once."""


def count_contents(
    dataset: Dataset, progress: Callable[[int, int], None] | None = None
) -> Contents:
    """Read every sample and count what it has.

    Raises:
        DataError: a file is broken; `check_dataset` names all of them.
    """
    labelled = dict.fromkeys(dataset.tasks, 0)
    pixels, cameras, sizes = np.zeros(256, np.int64), 0, set()
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        for done, sample in enumerate(pool.map(dataset.__getitem__, range(len(dataset))), start=1):
            for task in labelled:
                labelled[task] += sample.get(TASKS[task].field) is not None
            cameras += sample.intrinsics is not None
            sizes.add(sample.size)
            if sample.labels is not None:
                pixels += np.bincount(sample.labels.ravel(), minlength=256)
            if progress is not None:
                progress(done, len(dataset))
    names: list[str] = []
    if dataset.label_set is not None:
        names = list(dataset.label_set.names)
        names += [" or ".join(names[i] for i in group) for group in dataset.label_groups]
    total = max(1, int(pixels[: len(names)].sum()))
    return Contents(
        len(dataset),
        labelled,
        cameras,
        {name: float(pixels[i]) / total for i, name in enumerate(names) if pixels[i]},
        tuple(sorted(sizes)),
    )
