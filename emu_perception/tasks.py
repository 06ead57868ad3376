"""Every dense task once: its labels, its network channels and how its maps are read.

A new task is one entry of `TASKS`, a loss (`training/multitask/losses.py`), a metric
(`evaluation/evaluator.py`) and, to be published, an output (`messages/topics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from emu_perception.labels import HUMAN_PARTS
from emu_perception.prediction import UNLABELLED

Kind = Literal["classes", "binary", "depth", "direction"]
"""`classes` and `binary` maps are scores before a softmax; a `depth` map is a mean before a ReLU; a
`direction` is a vector of any length."""


@dataclass(frozen=True)
class DenseTask:
    """A dense prediction task."""

    name: str
    kind: Kind
    field: str
    """The field of `Sample` and `Batch` that holds its labels."""
    channels: int | None
    """Channels of a network's raw map, without a variance; None: one per class of the label set."""

    @property
    def scores(self) -> bool:
        """Whether its raw maps are scores of classes."""
        return self.kind in ("classes", "binary")

    @property
    def label_type(self) -> type[np.generic]:
        """NumPy type of the labels."""
        return np.uint8 if self.scores else np.float32

    @property
    def unknown(self) -> int:
        """The label of a pixel without one."""
        return UNLABELLED if self.scores else 0

    def label_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the labels of an image."""
        return (height, width, 3) if self.kind == "direction" else (height, width)

    def channel_count(self, classes: int | None) -> int:
        """Channels of a network's raw map, given the classes of the label set."""
        return (classes or 0) if self.channels is None else self.channels


TASKS = {
    task.name: task
    for task in (
        DenseTask("semantic", "classes", "labels", None),
        DenseTask("depth", "depth", "depth", 1),
        DenseTask("normals", "direction", "normals", 3),
        DenseTask("edges", "binary", "edges", 2),
        DenseTask("human_parts", "classes", "human_parts", len(HUMAN_PARTS)),
        DenseTask("saliency", "binary", "saliency", 2),
    )
}
"""By name, in the order of model files and raw outputs."""


def _known(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"there is no task '{name}'; the tasks are {', '.join(TASKS)}")
    return name


def _list_names(schema: dict[str, Any]) -> None:
    schema["enum"] = list(TASKS)


Task = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_list_names)]
"""Name of a task, in model files and configurations."""
