"""Phases of a benchmark: the camera, the node and the subscriber are processes of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from emu_perception.processes import (
    Child,
    Children,
    require_running,
)

START_SECONDS = 180.0
"""For the node to import, load and warm up; far more than it needs."""
BACKGROUND_SECONDS = 120.0
"""The longest time for which camera and subscriber run without the node."""
WARM_UP_SECONDS = 8.0
WARM_UP_RATE = 1.0
"""Hz."""
SETTLE_SECONDS = 30.0
"""For the node's counters to come to rest once the camera has ended."""


def camera_image(height: int, width: int) -> np.ndarray:
    """Smooth colours, uint8 RGB `(height, width, 3)`: what a network costs doesn't depend on it."""
    colors = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(colors, (width, height), interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True)
class Phase:
    """Counts and times while a camera published."""

    sent: dict[int, int]
    """When each stamp was published, nanoseconds of the steady clock."""
    received: dict[int, int]
    """When the last output of each stamp was received."""
    counts: dict[str, int]
    """By how much the node's counters grew."""
    topics: dict[int, str]
    """On which topic each stamp was published."""
    status: dict[str, Any]
    """The first one after the camera had ended: its times are of the seconds before."""

    @property
    def sent_rate(self) -> float:
        """Hz at which the camera managed to publish."""
        times = list(self.sent.values())
        return (len(times) - 1) / ((times[-1] - times[0]) * 1e-9) if len(times) > 1 else 0.0

    @property
    def latencies_ms(self) -> list[float]:
        """From publishing an image to the receipt of its last output, of those answered."""
        return [(t - self.sent[s]) * 1e-6 for s, t in self.received.items() if s in self.sent]


class Runner:
    """Runs a node, a camera and a subscriber, a phase at a time.

    Args:
        children: start the processes.
        node: the node's.
        seconds: length of a phase.
        outputs: topics to subscribe to, relative to each camera.
        cameras: namespaces of several cameras; all of them are one process.
    """

    def __init__(
        self,
        children: Children,
        node: Child,
        seconds: float,
        outputs: tuple[str, ...],
        cameras: tuple[str, ...] = ("",),
    ) -> None:
        self._children = children
        self.node = node
        self._seconds = seconds
        self._outputs = outputs
        self._cameras = cameras
        # The statuses of one camera stand for all.
        self._status_ends = f": {cameras[-1]}" if cameras[-1] else ""

    def wait_until_active(self) -> None:
        """Let the node load its model."""
        listener = self._listener("start", ())
        self._wait_until_ready(listener, subscribe=False)
        listener.stop()

    def warm_up(self, size: tuple[int, int]) -> None:
        """A few unmeasured images: an engine compiles at the first of a size."""
        seconds = min(WARM_UP_SECONDS, 2 * self._seconds)
        self.phase("warm_up", size, WARM_UP_RATE, subscribe=True, seconds=seconds)

    def phase(
        self,
        name: str,
        size: tuple[int, int],
        rate: float,
        *,
        subscribe: bool,
        seconds: float | None = None,
    ) -> Phase:
        """Let the camera run, with or without a subscriber, and read what the node counted."""
        topics = self._outputs if subscribe else ()
        listener = self._listener(name, topics)
        before = self._wait_until_ready(listener, subscribe)
        wait = 30 if subscribe else 0
        camera = self._camera(name, size, rate, seconds or self._seconds, wait)
        received: dict[int, int] = {}
        while camera.running:
            require_running(self.node, listener)
            self._listen(listener, received)
            time.sleep(0.05)
        if camera.process.returncode != 0:
            raise camera.failure("The camera failed.")
        statuses = self._settle(listener, received)
        listener.stop()
        camera.stop()
        after = statuses[-1]["values"]
        sent = list(camera.new_events())
        return Phase(
            sent={event["stamp_ns"]: event["published_ns"] for event in sent},
            topics={event["stamp_ns"]: event["topic"] for event in sent},
            received=received,
            counts={
                key: int(after.get(key, 0)) - int(before.get(key, 0))
                for key in ("received", "answered", "dropped", "bad input: inference")
            },
            status=statuses[0],
        )

    @contextmanager
    def background(self, size: tuple[int, int], rate: float) -> Iterator[None]:
        """Let camera and subscriber run without the node: the subscriber takes the images."""
        listener = self._listener("background", ("image",))
        camera = self._camera("background", size, rate, BACKGROUND_SECONDS, 30)
        received: dict[int, int] = {}
        while not received:
            require_running(camera, listener)
            self._listen(listener, received)
            time.sleep(0.05)
        yield
        require_running(camera, listener)
        camera.stop()
        listener.stop()

    def _listener(self, name: str, topics: tuple[str, ...]) -> Child:
        arguments = [*topics, *(f"--camera={camera}" for camera in self._cameras if camera)]
        module = "emu_perception.ros.benchmark_listener"
        return self._children.start(f"{name}_listener", module, arguments, events=True)

    def _camera(
        self, name: str, size: tuple[int, int], rate: float, seconds: float, wait: float
    ) -> Child:
        arguments = [f"--size={size[1]}x{size[0]}", f"--rate={rate}"]
        arguments += [f"--seconds={seconds}", f"--wait={wait}"]
        arguments += [f"{camera}/image" if camera else "image" for camera in self._cameras]
        module = "emu_perception.ros.benchmark_camera"
        return self._children.start(f"{name}_camera", module, arguments, events=True)

    def _listen(self, listener: Child, received: dict[int, int]) -> list[dict[str, Any]]:
        statuses = []
        for event in listener.new_events():
            if event["event"] == "status":
                if event["name"].endswith(self._status_ends):
                    statuses.append(event)
            else:
                received[event["stamp_ns"]] = event["received_ns"]
        return statuses

    def _wait_until_ready(self, listener: Child, subscribe: bool) -> dict[str, str]:
        """The node's values once it is active and knows whether somebody listens."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            require_running(self.node, listener)
            for status in self._listen(listener, {}):
                message, values = status["message"], status["values"]
                if values["state"] == "active" and message.startswith("idle") != subscribe:
                    return values
                if "failed: " in message:
                    raise self.node.failure(f"The node did not become active: {message}")
            time.sleep(0.05)
        raise self.node.failure(f"The node was not ready within {START_SECONDS:g} s.")

    def _settle(self, listener: Child, received: dict[int, int]) -> list[dict[str, Any]]:
        """Statuses until the counters stand still."""
        statuses: list[dict[str, Any]] = []
        counters = ("received", "answered")
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            require_running(self.node, listener)
            statuses += self._listen(listener, received)
            if len(statuses) >= 3:
                last = [[s["values"][c] for c in counters] for s in statuses[-2:]]
                if last[0] == last[1]:
                    return statuses
            time.sleep(0.05)
        raise self.node.failure(f"The node's counters did not settle in {SETTLE_SECONDS:g} s.")
