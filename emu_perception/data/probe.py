"""Check a few samples before training: do the data sets have labels of the tasks to train?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from emu_perception.data.dataset import Dataset
from emu_perception.data.sample import Sample
from emu_perception.prediction import UNLABELLED
from emu_perception.tasks import TASKS

PROBES = 8
"""At most so many samples of a data set are read; the search ends at the first that suffices."""


def check_supervision(
    datasets: Sequence[tuple[str, Dataset]], tasks: Sequence[str], with_camera: Collection[str] = ()
) -> None:
    """Refuse tasks that training would pass over in silence, with a loss of 0 for ever.

    Args:
        datasets: by name, with the tasks that can be derived.
        tasks: to learn.
        with_camera: those of them that only an image with a known camera teaches.

    Raises:
        ValueError: no data set teaches a task; the message names the task and each set.
    """
    for task in tasks:
        reasons = [
            (title, _obstacle(dataset, task, task in with_camera))
            for title, dataset in datasets
            if task in dataset.tasks
        ]
        if reasons and all(reason for _, reason in reasons):
            why = "; ".join(f"{title}: {reason}" for title, reason in reasons)
            raise ValueError(f"model.tasks contains {task}, which the data cannot teach: {why}")


def check_borders(
    datasets: Sequence[tuple[str, Dataset]], crop: tuple[int, int], smallest_scale: float
) -> None:
    """Refuse padding in domain adaptation: it would identify the domain.

    Args:
        datasets: by name.
        crop: height and width of training samples.
        smallest_scale: of the augmentation.

    Raises:
        ValueError: naming a data set whose images, scaled, are smaller than the crop.
    """
    for title, dataset in datasets:
        height, width = dataset[0].size
        scaled = round(height * smallest_scale), round(width * smallest_scale)
        if scaled[0] < crop[0] or scaled[1] < crop[1]:
            raise ValueError(
                f"{title}: an image of {width} x {height}, scaled by {smallest_scale:g}, is "
                f"smaller than the crop of {crop[1]} x {crop[0]}. Its padding would tell the "
                "domains apart: give the data set a larger size, or raise data.augmentation.scale"
            )


def _obstacle(dataset: Dataset, task: str, camera: bool) -> str | None:
    """Why no sample that was looked at teaches the task; None where one does, or none can tell."""
    found = None
    for sample in _spread(dataset):
        reason = _lack(sample, task, camera)
        if reason is None:
            return None
        found = reason or found
    return found


def _spread(dataset: Dataset) -> Iterator[Sample]:
    count = min(PROBES, len(dataset))
    return (dataset[number * len(dataset) // count] for number in range(count))


def _lack(sample: Sample, task: str, camera: bool) -> str | None:
    """None: it teaches the task. Empty: it has no label of it, which tells nothing of others."""
    if camera and sample.intrinsics is None:
        return "its images have no camera, without which metres mean nothing here"
    value = sample.get(TASKS[task].field)
    if task == "normals" and sample.depth is not None:
        if value is None and sample.intrinsics is None:
            return "its images have no camera to derive normals from depth with"
        if value is not None and not value.any():
            share = np.count_nonzero(sample.depth) / sample.depth.size
            return f"depth is known at {share:.1%} of the pixels, too few to fit normals to"
    if value is None:
        return ""
    if TASKS[task].kind == "direction":
        return None
    known = value > 0 if task == "depth" else value != UNLABELLED
    return None if known.any() else "no pixel has a label"
