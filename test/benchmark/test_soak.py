"""What a soak test is judged by, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emu_perception.benchmark.limits import failed
from emu_perception.benchmark.soak.cycles import CycleResult
from emu_perception.benchmark.soak.run import SoakResult
from emu_perception.benchmark.soak.samples import Sample, judge, take_sample, uncounted

STATUS = {
    "received": "100",
    "answered": "80",
    "dropped for a newer one": "15",
    "not wanted": "0",
    "bad input: size change": "40",
    "bad input: corrupt image file": "3",
}


def samples(minutes: float, memory: float = 0.0, threads: int = 0) -> list[Sample]:
    """A sample a second; memory (MB) and threads that grow by so much a minute."""
    return [
        Sample(t, 500 + memory * t, 20 + int(threads * t), 60, 10.0, 12.0, second, "active")
        for second in range(int(60 * minutes))
        for t in [second / 60]
    ]


def test_steady_figures_hold() -> None:
    checks = judge(samples(12), {**STATUS, "answered": "82"})
    assert all(check.holds for check in checks)


@pytest.mark.parametrize(
    ("memory", "threads", "failing"),
    [
        (2.0, 0, {"memory slope, second half", "rise of peak memory"}),
        (0.0, 1, {"rise of threads"}),
    ],
)
def test_growth_does_not_hold(memory: float, threads: int, failing: set[str]) -> None:
    checks = judge(samples(12, memory, threads), {**STATUS, "answered": "82"})
    assert {check.name for check in checks if check.holds is False} == failing
    (slope,) = (check for check in checks if check.name == "memory slope, second half")
    assert slope.figure == pytest.approx(memory, abs=1e-6)


def test_a_short_run_is_not_judged_by_growth() -> None:
    checks = judge(samples(2, memory=50), {**STATUS, "answered": "82"})
    assert not failed(checks)
    assert [check.name for check in checks if check.holds is not None] == ["images not counted"]


def test_images_that_nobody_counted() -> None:
    assert uncounted(STATUS) == 2
    assert not judge(samples(2), STATUS)[-1].holds
    assert judge(samples(2), {**STATUS, "not wanted": "2"})[-1].holds


def test_a_sample_of_this_process() -> None:
    import os

    sample = take_sample(os.getpid(), 1.5, {"state": "active", "latency p50 [ms]": "7.5"})
    assert sample.resident_mb > 10 and sample.threads >= 1 and sample.descriptors >= 3
    assert sample.latency_p50_ms == 7.5 and sample.latency_p95_ms is None


def test_the_report_is_a_page_and_json(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from emu_perception.benchmark.soak.report import HTML_FILE, JSON_FILE, write_report

    result = SoakResult(12, "<b>model</b>", 0, samples(12), status=STATUS, images_sent=100)
    result.actions = [{"minutes": 0.1, "action": "restart", "what": []}]
    result.checks = judge(result.samples, STATUS)
    assert write_report(tmp_path, result) == tmp_path / HTML_FILE
    page = (tmp_path / HTML_FILE).read_text(encoding="utf-8")
    assert "<b>model" not in page and "A limit does not hold" in page and "<svg" in page
    values = json.loads((tmp_path / JSON_FILE).read_text(encoding="utf-8"))
    assert values["holds"] is False and len(values["samples"]) == 720
    assert values["checks"][-1]["figure"] == 2


def test_memory_over_cycles_is_judged() -> None:
    steady = CycleResult("m", [500 + min(n, 90) for n in range(1000)])
    assert steady.check.holds and steady.check.figure == 0
    growing = CycleResult("m", [500 + 0.03 * n for n in range(1000)])
    assert growing.check.holds is False
    assert growing.check.figure == pytest.approx(0.03 * 900)
    short = CycleResult("m", [500.0, 900.0])
    assert short.check.holds is None and short.check.reason == "the run is too short"
    assert growing.to_dict()["check"]["holds"] is False
