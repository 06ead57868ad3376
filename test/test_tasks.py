"""The table of tasks agrees with what is typed by hand elsewhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

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


@pytest.mark.parametrize("program", ["emu_perception.cli", "emu_perception.ros.run_node"])
def test_plug_ins_register_tasks_when_a_program_starts(program: str, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(
        "from emu_perception.tasks import DenseTask, register_task\n"
        "register_task(DenseTask('shade', 'binary', 'shade', 2, 'shade.f1', True, 'shade', 'x'))\n"
    )
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[emu_perception.tasks]\nshade = my_task\n")
    code = (
        "import sys, importlib\n"
        f"sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['emu', '--ros-args', '-r']\n"
        f"try: importlib.import_module({program!r}).main()\n"
        "except BaseException: pass\n"  # neither program accepts these arguments
        "from emu_perception.tasks import TASKS; print('shade' in TASKS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("True"), done.stderr
