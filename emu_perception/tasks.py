"""Every dense task once: its labels, its network channels, its maps, its figure and its topic.

A new task is one `register_task`, a loss (`register_loss` of `training.multitask.task_losses`), a
validation metric (`register_validation` of `training.validation`) and a scorer (`register_scorer`
of `evaluation.scorers`). Networks, data, engines, exports and topics follow from its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from emu_perception.labels import HUMAN_PARTS
from emu_perception.prediction import UNLABELLED

Kind = Literal["classes", "binary", "depth", "direction"]
"""Activation of the raw map: `classes` and `binary` maps are scores before a softmax, a `depth` map
is a mean before a ReLU, a `direction` is a vector of any length."""


@dataclass(frozen=True)
class DenseTask:
    """A dense prediction task."""

    name: str
    kind: Kind
    field: str
    """Name of its labels in `Sample` and `Batch`, and of its map in `Prediction`."""
    channels: int | None
    """Channels of a network's raw map, without a variance; None: one per class of the label set."""
    figure: str
    """Key in `Evaluation` of the figure that it is judged by."""
    more_is_better: bool
    """Whether a larger figure is better."""
    topic: str
    """Relative name of the image topic with its map."""
    meaning: str
    """Values of the published map, for the documentation."""

    @property
    def scores(self) -> bool:
        """Whether its raw maps are scores of classes."""
        return self.kind in ("classes", "binary")

    @property
    def label_type(self) -> type[np.generic]:
        """NumPy type of the labels."""
        return np.uint8 if self.scores else np.float32

    @property
    def map_type(self) -> type[np.generic]:
        """NumPy type of the predicted map: ids, or numbers such as the probability of an edge."""
        return np.uint8 if self.kind == "classes" else np.float32

    @property
    def unknown(self) -> int:
        """The label of a pixel without one."""
        return UNLABELLED if self.scores else 0

    def label_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the labels, and of the predicted map, of an image."""
        return (height, width, 3) if self.kind == "direction" else (height, width)

    def channel_count(self, classes: int | None) -> int:
        """Channels of a network's raw map, given the classes of the label set."""
        return (classes or 0) if self.channels is None else self.channels


TASKS: dict[str, DenseTask] = {
    task.name: task
    for task in (
        DenseTask(
            name="semantic",
            kind="classes",
            field="labels",
            channels=None,
            figure="semantic.miou",
            more_is_better=True,
            topic="semantic/labels",
            meaning="class id, 255 = unlabelled",
        ),
        DenseTask(
            name="depth",
            kind="depth",
            field="depth",
            channels=1,
            figure="depth.rmse",
            more_is_better=False,
            topic="depth/image",
            meaning="metres along the optical axis, NaN = invalid",
        ),
        DenseTask(
            name="normals",
            kind="direction",
            field="normals",
            channels=3,
            figure="normals.mean_angular_error",
            more_is_better=False,
            topic="normals",
            meaning="unit vectors in the optical frame, towards the camera",
        ),
        DenseTask(
            name="edges",
            kind="binary",
            field="edges",
            channels=2,
            figure="edges.f1",
            more_is_better=True,
            topic="edges",
            meaning="probability of a class boundary",
        ),
        DenseTask(
            name="human_parts",
            kind="classes",
            field="human_parts",
            channels=len(HUMAN_PARTS),
            figure="human_parts.miou",
            more_is_better=True,
            topic="human_parts",
            meaning="id of the part of a person, 0 = none",
        ),
        DenseTask(
            name="saliency",
            kind="binary",
            field="saliency",
            channels=2,
            figure="saliency.max_f",
            more_is_better=True,
            topic="saliency",
            meaning="probability of a salient object",
        ),
    )
}
"""By name, in the order of model files and raw outputs.

Edges are judged by the F1 of the edge pixels; DenseMTL's tables have `edges.f1_mean`, which is
larger and moves less."""
WITH_UNCERTAINTY = ("semantic", "depth")
"""Tasks whose maps come with uncertainties; each of the others has one map, named as its field."""


def register_task(task: DenseTask) -> None:
    """Add a task to `TASKS`.

    Raises:
        ValueError: there is one of this name, or its kind comes with uncertainties.
    """
    if task.name in TASKS:
        raise ValueError(f"the task '{task.name}' exists already")
    if task.kind == "depth" or task.channels is None:
        raise ValueError(
            f"task '{task.name}': only semantic and depth predict distances or the classes of the "
            "label set; use the kind classes, binary or direction with a number of channels"
        )
    TASKS[task.name] = task


def other_tasks() -> dict[str, DenseTask]:
    """The tasks without uncertainties, by name."""
    return {name: task for name, task in TASKS.items() if name not in WITH_UNCERTAINTY}


def byte_maps() -> frozenset[str]:
    """Names of the `Prediction` fields that hold ids."""
    return frozenset(task.field for task in TASKS.values() if task.map_type is np.uint8)


def _known(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"there is no task '{name}'; the tasks are {', '.join(TASKS)}")
    return name


def _list_names(schema: dict[str, Any]) -> None:
    schema["enum"] = list(TASKS)


Task = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_list_names)]
"""Name of a task, in model files and configurations."""
