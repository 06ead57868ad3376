"""`emu benchmark node` for real: three processes over DDS, and what their JSON says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from emu_perception import cli
from emu_perception.benchmark import node as benchmark
from emu_perception.benchmark import node_cameras, node_runner
from emu_perception.benchmark.node import (
    FIXED_RATES,
    OUTPUTS,
    PEAK_STEPS,
)
from emu_perception.benchmark.node_runner import Phase


def test_counts_and_times_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_path: Path
) -> None:
    file = tmp_path / "results" / "node.json"
    monkeypatch.setattr(benchmark, "TURNS", 1)
    monkeypatch.setattr(node_runner, "WARM_UP_SECONDS", 2.0)
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
    assert overload["latency_p99_ms"] > 0
    throughput = found["throughput"]
    assert throughput["ratios"] == [throughput["ratio"]] and throughput["ratio"] > 0
    assert throughput["loaded_per_second"] > 0 and throughput["loaded_ratio"] > 0
    assert overload["resident_bytes"] > 100e6
    assert idle == {"frames_sent": 20, "frames_received": 0, "inferences": 0}


def test_several_cameras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_path: Path) -> None:
    file = tmp_path / "cameras.json"
    monkeypatch.setattr(node_cameras, "TURNS", 1)
    monkeypatch.setattr(node_runner, "WARM_UP_SECONDS", 2.0)
    options = ["--cameras", "3", "--size", "160x120", "--seconds", "3", "--model", str(model_path)]
    monkeypatch.setattr(sys, "argv", ["emu", "benchmark", "node", *options, "--json", str(file)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    found = json.loads(file.read_text())
    assert found["cameras"] == ["camera_1", "camera_2", "camera_3"]
    assert found["image_size"] == [120, 160]
    assert min(found["answered"].values()) > 0
    assert found["loaded_ratio"] > 0 and found["fairness"] >= 1
    assert 0.5 < found["memory_ratio"] < 2


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


class SlowNode:
    """Answers up to `capacity` images a second; stands in for a runner of processes."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.rates: list[float] = []

    def warm_up(self, size: tuple[int, int]) -> None:
        pass

    def phase(self, name: str, size: tuple[int, int], rate: float, *, subscribe: bool) -> Phase:
        self.rates.append(rate)
        sent = {stamp: stamp for stamp in range(1000)}
        answered = round(1000 * min(1.0, self.capacity / rate))
        received = {stamp: stamp + 7_000_000 for stamp in range(answered)}
        return Phase(sent, received, {}, {}, {})


@pytest.mark.parametrize("capacity", [0.01, 4.0, 13.0, 35.0, 200.0])
def test_the_peak_rate_is_the_highest_that_is_sustained(capacity: float) -> None:
    node: Any = SlowNode(capacity)
    loads = benchmark._fixed_rates(node, (480, 640), lambda what: None)
    assert tuple(node.rates) == FIXED_RATES
    answered = [load.latency_p99_ms for load in loads if load.frames_answered]
    assert answered == pytest.approx([7.0] * len(answered))
    peak = benchmark._peak(node, (480, 640), loads, max(8.0, 1.2 * capacity), lambda what: None)
    assert len(node.rates) <= len(FIXED_RATES) + PEAK_STEPS
    if capacity < 0.1:
        assert not peak.sustained
        return
    assert peak.sustained and peak.rate_hz in node.rates
    # Fewer than 5 % may be left out; a bisection ends within a part of the first interval.
    limit = min(max(FIXED_RATES), capacity / 0.95)
    assert limit - 30 / 2**PEAK_STEPS <= peak.rate_hz <= limit
