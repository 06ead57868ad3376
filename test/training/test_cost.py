"""What a teacher costs: the figures belong to the steps they are named after."""

from pathlib import Path

import pytest
import tiny

from emu_perception.training.cost import step_cost


def test_a_larger_teacher_costs_more(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, tmp_path)
    found = step_cost(config, 4, steps=1)
    assert found.ratio > 1
    assert found.ratio == pytest.approx(found.distillation_seconds / found.plain_seconds)
    # Four encoders of 3.3 million float32 weights.
    assert found.distillation_bytes - found.plain_bytes > 25e6
    assert found.to_dict()["members"] == 4
