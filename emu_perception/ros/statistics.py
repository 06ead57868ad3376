"""Counters and latencies of the node, written by several threads and read once a second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from emu_perception.messages.errors import BadInput
from emu_perception.text import one_line

WINDOW = 5.0
"""Seconds over which rates, latencies and means are usually taken."""
FEW_IMAGES = 10
"""Fewer images do not show losses: a publisher's first images may precede the subscription."""
LOG_INTERVAL = 1.0
"""Seconds for which a kind of bad input is logged only once."""


@dataclass(frozen=True)
class Answer:
    """One answered frame."""

    time: float
    """Steady clock, seconds, when the last output was published."""
    latency: float
    """Seconds from the image's callback to the last output."""
    inference: float
    """Seconds inside the predictor."""
    overhead: float
    """Seconds of the node's own work: converting, rendering, publishing."""
    semantic_uncertainty: float | None = None
    """Mean over the image, 0–1; None where it was not computed."""
    depth_std: float | None = None
    """Mean standard deviation over the valid depth, metres."""
    domain_distance: float | None = None
    """Distance of the image from the training domain, 1 = unfamiliar; None without statistics."""


@dataclass(frozen=True)
class Snapshot:
    """The counters at one moment."""

    answers: tuple[Answer, ...]
    """Outputs of the last seconds, the newest last."""
    received: int
    answered: int
    lost: int
    """Sent by the publisher, never seen by the node."""
    lost_fraction: float
    """Fraction of the images of the last seconds that never reached the node; 0 for few images."""
    overtaken: int
    """Received, but a newer frame came before its turn."""
    unwanted: int
    """Received, but no output was subscribed to when its turn came, or the node stopped."""
    time_jumps: int
    bad: dict[str, int] = field(default_factory=dict)
    recent_bad: dict[str, str] = field(default_factory=dict)
    """Kinds that occurred since the last snapshot, with the newest message."""
    last_received: float | None = None
    """Steady clock, seconds; None before the first image since listening began."""
    listening_since: float | None = None
    """Steady clock, seconds; None while there is no input subscription."""

    def percentiles(self, name: str) -> dict[str, float]:
        """Percentiles of a field of `Answer` (`p50`, `p95`, `p99`, `max`); empty if none."""
        values = [getattr(answer, name) for answer in self.answers]
        if not values:
            return {}
        found = {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}
        return {**found, "max": max(values)}

    def mean(self, name: str) -> float | None:
        """Mean of an `Answer`'s field over those that have it."""
        values = [v for a in self.answers if (v := getattr(a, name)) is not None]
        return float(np.mean(values)) if values else None

    @property
    def rate(self) -> float:
        """Answers per second."""
        if len(self.answers) < 2:
            return 0.0
        return (len(self.answers) - 1) / max(self.answers[-1].time - self.answers[0].time, 1e-9)


class Statistics:
    """Thread-safe counters of one node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: deque[Answer] = deque(maxlen=4096)
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=4096)
        self._counts: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()
        self._recent_bad: dict[str, str] = {}
        self._logged: dict[str, tuple[float, int]] = {}
        self._last_received: float | None = None
        self._listening_since: float | None = None

    def listening(self, on: bool) -> None:
        """The input subscription was created or dropped."""
        with self._lock:
            self._listening_since = time.monotonic() if on else None
            self._last_received = None
            self._answers.clear()
            self._arrivals.clear()

    def received(self, lost: int) -> None:
        """An image came; `lost` ones before it did not."""
        with self._lock:
            self._last_received = time.monotonic()
            self._arrivals.append((self._last_received, lost))
            self._counts["received"] += 1
            self._counts["lost"] += lost

    def overtaken(self) -> None:
        """A received image was replaced by a newer one."""
        with self._lock:
            self._counts["overtaken"] += 1

    def unwanted(self) -> None:
        """A received image needed no answer: no output was subscribed to, or the node stopped."""
        with self._lock:
            self._counts["unwanted"] += 1

    def answered(self, answer: Answer) -> None:
        """An image was answered."""
        with self._lock:
            self._counts["answered"] += 1
            self._answers.append(answer)

    def time_jumped(self) -> None:
        """Stamps went back in time: earlier measurements are discarded."""
        with self._lock:
            self._counts["time_jumps"] += 1
            self._answers.clear()

    def bad(self, kind: BadInput, message: str) -> str | None:
        """Count bad input; returns what to log, None if this kind was logged a moment ago."""
        now = time.monotonic()
        message = one_line(message)  # it may quote a field of a message, megabytes long
        with self._lock:
            self._bad[kind.value] += 1
            self._recent_bad[kind.value] = message
            last, silent = self._logged.get(kind.value, (-LOG_INTERVAL, 0))
            if now - last < LOG_INTERVAL:
                self._logged[kind.value] = (last, silent + 1)
                return None
            self._logged[kind.value] = (now, 0)
            return f"{message} ({silent} more since the last message)" if silent else message

    def snapshot(self, window: float = WINDOW) -> Snapshot:
        """The counters now, answers of the last `window` seconds; starts a new period of
        `recent_bad`."""
        with self._lock:
            oldest = time.monotonic() - window
            while self._answers and self._answers[0].time < oldest:
                self._answers.popleft()
            while self._arrivals and self._arrivals[0][0] < time.monotonic() - WINDOW:
                self._arrivals.popleft()
            lost = sum(lost for _, lost in self._arrivals)
            sent = len(self._arrivals) + lost
            recent, self._recent_bad = self._recent_bad, {}
            return Snapshot(
                answers=tuple(self._answers),
                received=self._counts["received"],
                answered=self._counts["answered"],
                lost=self._counts["lost"],
                lost_fraction=lost / sent if sent >= FEW_IMAGES else 0.0,
                overtaken=self._counts["overtaken"],
                unwanted=self._counts["unwanted"],
                time_jumps=self._counts["time_jumps"],
                bad=dict(self._bad),
                recent_bad=recent,
                last_received=self._last_received,
                listening_since=self._listening_since,
            )
