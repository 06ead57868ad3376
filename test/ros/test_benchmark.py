"""`emu benchmark node` for real: three processes over DDS, and what their JSON says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from emu_perception import cli
from emu_perception.ros.benchmark import OUTPUTS


def test_counts_and_times_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_path: Path
) -> None:
    file = tmp_path / "results" / "node.json"
    size = ["--size", "160x120", "--camera-size", "160x120", "--camera-rate", "20"]
    options = [*size, "--rate", "10", "--seconds", "1", "--model", str(model_path)]
    monkeypatch.setattr(sys, "argv", ["emu", "benchmark", "node", *options, "--json", str(file)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    found = json.loads(file.read_text())
    assert found["outputs"] == list(OUTPUTS)
    timing, delivery, idle = found["timing"], found["delivery"], found["idle"]
    assert timing["image_size"] == delivery["image_size"] == [120, 160]
    assert timing["frames_sent"] == 10 and 0 < timing["frames_answered"] <= 10
    assert all(v > 0 for name, v in timing.items() if name.endswith(("_ms", "_ratio")))
    assert delivery["frames_sent"] == 20
    assert delivery["frames_received"] + delivery["frames_lost"] == 20
    assert delivery["frames_received"] >= delivery["frames_answered"] > 0
    overload = found["overload"]
    assert 2 <= overload["frames_answered"] <= overload["frames_sent"] == 60
    assert overload["throughput_ratio"] > 0 and overload["latency_p99_ms"] > 0
    assert overload["resident_bytes"] > 100e6
    assert idle == {"frames_sent": 20, "frames_received": 0, "inferences": 0}


def test_a_node_that_cannot_load_its_model_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "broken.safetensors"
    model.write_bytes(b"no model")
    monkeypatch.setattr(sys, "argv", ["emu", "benchmark", "node", "--model", str(model)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "broken.safetensors" in capsys.readouterr().err
