"""What a teacher costs: the figures belong to the steps they are named after."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml
from typer.testing import CliRunner

from emu_perception.benchmark import training_cost as cost
from emu_perception.benchmark.training_cost import StepCost, step_cost
from emu_perception.cli import app


def test_a_larger_teacher_costs_more(tmp_path: Path) -> None:
    config = tiny.config(
        tmp_path,
        tmp_path,
        # Terms of images without depth, and of a road.
        loss={"ground_weight": 0.1},
        distillation={"teacher": ["none"], "missing_depth_weight": 0.5},
    )
    found = step_cost(config, 4, steps=1)
    assert found.ratio > 1
    assert found.ratio == pytest.approx(found.distillation_seconds / found.plain_seconds)
    # Four encoders of 3.3 million float32 weights.
    assert found.distillation_bytes - found.plain_bytes > 25e6
    assert found.to_dict()["members"] == 4


def test_the_check_fails_above_three_plain_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny.values(tmp_path, tmp_path)))
    within = StepCost("cpu", 10, 2, (32, 64), 1.0, 2.9, 1, 2)
    for found, status in ((within, 0), (replace(within, distillation_seconds=3.1), 1)):
        monkeypatch.setattr(cost, "step_cost", lambda *_, found=found, **__: found)
        command = ["benchmark", "distillation", "--config", str(config), "--check"]
        assert CliRunner().invoke(app, command).exit_code == status
