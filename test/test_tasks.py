"""The table of tasks agrees with what is typed by hand elsewhere."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from emu_perception.data.batch import Batch, collate
from emu_perception.data.sample import Sample
from emu_perception.prediction import Prediction
from emu_perception.tasks import TASKS, Task


def test_typed_fields_are_those_of_the_table() -> None:
    schema = TypeAdapter(Task).json_schema()
    assert schema["enum"] == list(TASKS)
    with pytest.raises(ValidationError, match=r"no task .lanes.; the tasks are semantic, depth"):
        TypeAdapter(Task).validate_python("lanes")
    labels = {task.field for task in TASKS.values()}
    assert labels <= {field.name for field in fields(Sample)}
    assert labels <= {field.name for field in fields(Prediction)}
    for name in labels:
        assert {name, f"{name}_valid", f"has_{name}"} <= set(Batch.__annotations__)


def test_a_sample_without_labels_fills_a_batch_with_unknown_ones() -> None:
    sample = Sample("name", "clip", np.zeros((4, 6, 3), np.uint8))
    batch = collate([sample], tuple(TASKS))
    for task in TASKS.values():
        assert (batch[task.field] == task.unknown).all()
        assert not batch[f"{task.field}_valid"].any() and not batch[f"has_{task.field}"].any()
    assert batch["normals"].shape == (1, 3, 4, 6)
