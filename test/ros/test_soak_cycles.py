"""A few lifecycle cycles of a real node, each with an answered image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emu_perception.benchmark.soak import cycles
from emu_perception.cli import app
from emu_perception.processes import ProcessError


def test_a_few_cycles(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from emu_perception.inference.export import write_graph
    from emu_perception.reliability.deployed import small_model

    path = tmp_path / "small.onnx"
    model = small_model(path.with_suffix(".safetensors"))
    write_graph(model, path, model.spec.model_copy(update={"traits": model.traits}))
    command = ["soak", "--cycles=3", "--model", str(path), "--out", str(tmp_path)]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, (found.output, found.exception)
    assert "not judged" in found.output
    values = json.loads((tmp_path / "cycles.json").read_text())
    assert len(values["resident_mb"]) == 3 and min(values["resident_mb"]) > 50


def test_a_failing_transition_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(ProcessError, match="configure: failed"):
        cycles.run_cycles(tmp_path / "broken.onnx", 2, tmp_path / "logs")
