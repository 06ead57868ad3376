"""The status for /diagnostics, from counters alone."""

from __future__ import annotations

import time

from emu_perception.ros.diagnostics import OK, WARN, NodeState, diagnose
from emu_perception.ros.settings import Settings
from emu_perception.ros.statistics import Answer, Snapshot


def counts(*distances: float | None) -> Snapshot:
    now = time.monotonic()
    answers = tuple(
        Answer(time=now, latency=0.1, inference=0.1, overhead=0.0, domain_distance=distance)
        for distance in distances
    )
    return Snapshot(
        answers=answers,
        received=len(answers),
        answered=len(answers),
        lost=0,
        lost_fraction=0.0,
        overtaken=0,
        unwanted=0,
        time_jumps=0,
        last_received=now,
        listening_since=now,
    )


def test_images_of_another_domain_are_a_warning_by_default() -> None:
    state = NodeState(name="emu", lifecycle="active")
    near, far, unknown = (
        diagnose(state, counts(*each), Settings()) for each in ((0.6, 0.8), (0.9, 1.5), (None,))
    )
    assert near.level == unknown.level == OK
    assert far.level == WARN and "domain distance 1.20 is above 1" in far.message
    values = {each.key: each.value for each in far.values}
    assert values["domain distance"] == "1.200"
    assert "domain distance" not in {each.key for each in unknown.values}
    for settings in (Settings(alarm_domain_distance=0.0), Settings(alarm_domain_distance=1.3)):
        assert diagnose(state, counts(0.9, 1.5), settings).level == OK
