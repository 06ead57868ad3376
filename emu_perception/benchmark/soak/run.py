"""Runs the node among cameras that are killed and subscribers that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emu_perception.benchmark.limits import Limit, failed
from emu_perception.benchmark.measure import describe_machine
from emu_perception.benchmark.soak.plan import PHASE_SECONDS, CameraPhase, phases
from emu_perception.benchmark.soak.samples import Sample, judge, take_sample, uncounted
from emu_perception.processes import (
    Child,
    Children,
    require_ros,
    require_running,
    ros_arguments,
    ros_environment,
    terminated_as_exit,
)

SAMPLE_SECONDS = 1.0
START_SECONDS = 300.0
"""For the node to import, load and compile."""
SETTLE_SECONDS = 120.0
"""At most, for the last images to be answered."""


@dataclass
class SoakResult:
    """Result of a soak test."""

    minutes: float
    """From the node's activation to the end of the last camera."""
    model: str
    seed: int
    samples: list[Sample] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    """`minutes`, `action` and `what` of each action and of each camera's start."""
    status: dict[str, str] = field(default_factory=dict)
    """Values of the node's last diagnostics."""
    cameras_killed: int = 0
    images_sent: int = 0
    """At least: a camera reports every ten images."""
    checks: list[Limit] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every judged figure is within its limit."""
        return not failed(self.checks)


class Soak:
    """One soak test.

    Args:
        model: model file.
        minutes: how long the node is kept busy.
        seed: of the robot's actions.
        logs: folder for the processes' logs.
        progress: called with what begins.
    """

    def __init__(
        self,
        model: Path,
        minutes: float,
        seed: int,
        logs: Path,
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._model, self._seconds, self._seed = model, 60 * minutes, seed
        self._logs, self._progress = logs, progress
        self._result = SoakResult(minutes, model.name, seed, machine=describe_machine("cpu"))
        self._begin = 0.0
        self._sampled = 0.0

    def run(self) -> SoakResult:
        """Run it.

        Raises:
            ProcessError: no ROS, or the node or the robot ended early; the message has its log.
        """
        require_ros()
        with terminated_as_exit(), Children(ros_environment(), self._logs) as children:
            self._progress("Starting the node")
            parameters = {"model": str(self._model.resolve()), "autostart": True}
            node = children.start("node", "emu_perception.ros.run_node", ros_arguments(parameters))
            arguments = [f"--seed={self._seed}", f"--seconds={self._seconds}"]
            # The actions begin when the node can receive requests.
            listener = children.start(
                "listener", "emu_perception.ros.benchmark_listener", (), events=True
            )
            self._wait_until_active(node, listener)
            listener.stop()
            self._begin = time.monotonic()
            robot = children.start("robot", "emu_perception.ros.soak_robot", arguments, events=True)
            for number, phase in enumerate(phases()):
                if self._elapsed() >= self._seconds:
                    break
                self._run_camera(children, node, robot, phase, number)
            self._progress("Waiting for the last images")
            deadline = time.monotonic() + SETTLE_SECONDS
            self._watch(node, robot, 2 * SAMPLE_SECONDS)
            # Images are in hand until then; a transition waits for an engine that compiles.
            while time.monotonic() < deadline and uncounted(self._result.status):
                self._watch(node, robot, SAMPLE_SECONDS)
        result = self._result
        if not result.status:
            raise node.failure("The node published no diagnostics.")
        result.checks = judge(result.samples, result.status)
        return result

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _wait_until_active(self, node: Child, listener: Child) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            require_running(node, listener)
            for event in listener.new_events():
                if event["event"] == "status" and event["values"]["state"] == "active":
                    return
            time.sleep(0.1)
        raise node.failure(f"The node was not active within {START_SECONDS:g} s.")

    def _run_camera(
        self, children: Children, node: Child, robot: Child, phase: CameraPhase, number: int
    ) -> None:
        self._progress(f"Camera: {phase.name} ({self._elapsed() / 60:.1f} min)")
        self._note("camera", phase.name)
        arguments = [f"--size={width}x{height}" for height, width in phase.sizes]
        arguments += [f"--rate={phase.rate}", f"--loop={phase.loop_seconds}"]
        arguments += ["--camera-info", "--report-every=10"]
        camera = children.start(
            f"camera_{number % 4}", "emu_perception.ros.benchmark_camera", arguments, events=True
        )
        left = self._seconds - self._elapsed()
        self._watch(node, robot, min(PHASE_SECONDS, max(left, SAMPLE_SECONDS)))
        require_running(camera)
        camera.process.kill()  # as when a driver crashes
        camera.stop()
        self._result.cameras_killed += 1
        self._result.images_sent += max((event["sent"] for event in camera.new_events()), default=0)

    def _watch(self, node: Child, robot: Child, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            require_running(node, robot)
            for event in robot.new_events():
                if event["event"] == "status":
                    self._result.status = event["values"]
                else:
                    self._note(event["action"], event["what"])
            if time.monotonic() >= self._sampled + SAMPLE_SECONDS:
                self._sampled = time.monotonic()
                sample = take_sample(node.process.pid, self._elapsed() / 60, self._result.status)
                self._result.samples.append(sample)
            time.sleep(0.05)

    def _note(self, action: str, what: object) -> None:
        minutes = round(self._elapsed() / 60, 3)
        self._result.actions.append({"minutes": minutes, "action": action, "what": what})
