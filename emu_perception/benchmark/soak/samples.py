"""Samples of the node's process, one per second, and the limits that they are judged by."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emu_perception.benchmark.limits import Limit
from emu_perception.benchmark.measure import resident_bytes

SHORTEST_MINUTES = 10.0
"""Shorter runs are reported and not judged by growth: caches still fill."""
TOO_SHORT = "the run is too short"
SLOPE_LIMIT = 1.0
"""MB per minute of resident memory over the second half."""
PEAK_LIMIT = 5.0
"""MB by which the last sixth's peak may exceed that of the second sixth."""
REFUSED = ("size change", "camera_info", "model file", "parameter")
"""Kinds of bad input that do not end an image: it is answered all the same, or there is none."""


@dataclass(frozen=True)
class Sample:
    """One moment."""

    minutes: float
    """Since the node became active."""
    resident_mb: float
    threads: int
    descriptors: int
    latency_p50_ms: float | None
    """From receiving an image to its last output, over the last seconds; None without answers."""
    latency_p95_ms: float | None
    answered: int
    state: str
    """State of the lifecycle."""


def take_sample(process: int, minutes: float, status: Mapping[str, str]) -> Sample:
    """A sample of a running process, with the values of its newest diagnostics."""

    def number(key: str) -> float | None:
        return float(status[key]) if key in status else None

    return Sample(
        minutes=minutes,
        resident_mb=resident_bytes(process) / 1e6,
        threads=len(os.listdir(f"/proc/{process}/task")),
        descriptors=len(list(Path(f"/proc/{process}/fd").iterdir())),
        latency_p50_ms=number("latency p50 [ms]"),
        latency_p95_ms=number("latency p95 [ms]"),
        answered=int(status.get("answered", 0)),
        state=status.get("state", ""),
    )


def uncounted(status: Mapping[str, str]) -> int:
    """Received images that were neither answered nor counted as dropped, refused or not wanted."""
    refused = sum(
        int(value)
        for key, value in status.items()
        if key.startswith("bad input: ") and key.removeprefix("bad input: ") not in REFUSED
    )
    counted = sum(
        int(status.get(key, 0)) for key in ("answered", "dropped for a newer one", "not wanted")
    )
    return int(status.get("received", 0)) - counted - refused


def judge(samples: Sequence[Sample], status: Mapping[str, str]) -> list[Limit]:
    """Compare the figures of a run with their limits.

    Args:
        samples: by rising time.
        status: values of the last diagnostics, after the last camera ended.
    """
    minutes = np.array([sample.minutes for sample in samples])
    memory = np.array([sample.resident_mb for sample in samples])
    end = float(minutes[-1])
    half = minutes >= end / 2
    slope = float(np.polyfit(minutes[half], memory[half], 1)[0]) if half.sum() > 2 else 0.0

    def rise(values: Sequence[float]) -> float:
        found = np.array(values)
        second = found[(minutes >= end / 6) & (minutes < end / 3)]
        last = found[minutes >= end * 5 / 6]
        return float(last.max() - second.max()) if len(second) and len(last) else 0.0

    short = "" if end >= SHORTEST_MINUTES else TOO_SHORT
    growth = [
        ("memory slope, second half", SLOPE_LIMIT, slope, "MB/min"),
        ("rise of peak memory", PEAK_LIMIT, rise(list(memory)), "MB"),
        ("rise of threads", 0, rise([s.threads for s in samples]), ""),
        ("rise of descriptors", 0, rise([s.descriptors for s in samples]), ""),
    ]
    return [
        *(Limit(name, most, value, short, True, unit) for name, most, value, unit in growth),
        Limit("images not counted", 0, abs(uncounted(status)), at_most=True),
    ]
