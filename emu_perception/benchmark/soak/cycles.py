"""Memory of the node over many lifecycle cycles."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emu_perception.benchmark.limits import Limit
from emu_perception.benchmark.measure import describe_machine, resident_bytes
from emu_perception.benchmark.soak.samples import TOO_SHORT
from emu_perception.processes import (
    Children,
    require_ros,
    require_running,
    ros_arguments,
    ros_environment,
    terminated_as_exit,
)

FIRST_CYCLES = 100
"""Until then libraries load and pools fill."""
JUDGED_CYCLES = 1000
"""Shorter runs are reported and not judged."""
RISE_LIMIT = 20.0
"""MB of resident memory after the first cycles."""
CYCLE_SECONDS = 900.0
"""For one cycle; the first imports and compiles."""


@dataclass
class CycleResult:
    """Memory after each lifecycle cycle."""

    model: str
    resident_mb: list[float] = field(default_factory=list)
    """Resident memory of the unconfigured node after each cycle."""
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def check(self) -> Limit:
        """Rise of memory from the first cycles to the end."""
        memory = self.resident_mb
        first = memory[min(FIRST_CYCLES, len(memory)) - 1]
        short = "" if len(memory) >= JUDGED_CYCLES else TOO_SHORT
        name = f"memory after {len(memory)} cycles above that after {FIRST_CYCLES}"
        return Limit(name, RISE_LIMIT, memory[-1] - first, short, True, "MB")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "check": self.check.to_dict()}


def run_cycles(
    model: Path,
    cycles: int,
    logs: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> CycleResult:
    """Configure, activate, answer an image, deactivate and clean up, again and again.

    Args:
        model: model file.
        cycles: their number.
        logs: folder for the processes' logs.
        progress: called with the number of cycles so far.

    Raises:
        ProcessError: no ROS, a transition failed, or an image was not answered.
    """
    require_ros()
    result = CycleResult(model.name, machine=describe_machine("cpu"))
    with terminated_as_exit(), Children(ros_environment(), logs) as children:
        parameters = {"model": str(model.resolve()), "autostart": False}
        node = children.start("node", "emu_perception.ros.run_node", ros_arguments(parameters))
        arguments = [f"--cycles={cycles}"]
        robot = children.start("robot", "emu_perception.ros.soak_cycles", arguments, events=True)
        last = time.monotonic()
        while len(result.resident_mb) < cycles:
            for event in robot.new_events():
                if event["event"] != "cycle":
                    continue
                result.resident_mb.append(resident_bytes(node.process.pid) / 1e6)
                progress(len(result.resident_mb))
                last = time.monotonic()
            if len(result.resident_mb) < cycles:
                require_running(node, robot)
            if time.monotonic() > last + CYCLE_SECONDS:
                raise robot.failure(f"A cycle was not done within {CYCLE_SECONDS:g} s.")
            time.sleep(0.01)
    return result
