"""Several cameras through one model: memory, rate and fairness of one node that serves them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.benchmark.limits import Limit
from emu_perception.benchmark.measure import resident_bytes
from emu_perception.benchmark.node import FASTER, OUTPUTS, TURNS, bare_times
from emu_perception.benchmark.node_runner import Phase, Runner
from emu_perception.inference.engines.cache import remember_image_size
from emu_perception.inference.predictor import Predictor
from emu_perception.messages.topics import IMAGE_OUTPUTS
from emu_perception.processes import (
    Children,
    ProcessError,
    require_ros,
    ros_arguments,
    ros_environment,
    terminated_as_exit,
)

SETTLING_NS = 1_000_000_000
"""Time at the beginning of a phase that is not measured: subscriptions settle."""


@dataclass(frozen=True)
class CamerasBenchmark:
    """One node with several cameras, compared with the predictor and with one camera."""

    model: str
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    """Height and width."""
    rate_hz: float
    """Rate of each camera; together they are faster than the model."""
    answered: dict[str, int]
    """Answered images by camera, in all turns."""
    answered_per_second: float
    """All cameras together; median of the turns."""
    loaded_per_second: float
    """The predictor while the cameras publish and the subscriber takes the images; median."""
    loaded_ratio: float
    """Median of the turns."""
    loaded_ratios: tuple[float, ...]
    one_camera_bytes: int
    """Resident memory of a node with one camera, at the end."""
    resident_bytes: int
    """Resident memory of the node with all cameras."""
    load_average: tuple[float, float]
    """Load average of the last minute, before and after."""

    @property
    def fairness(self) -> float:
        """Ratio of the most to the least answered images of a camera."""
        return max(self.answered.values()) / max(1, min(self.answered.values()))

    @property
    def memory_ratio(self) -> float:
        """Resident memory over that with one camera."""
        return self.resident_bytes / self.one_camera_bytes

    def claims(self) -> list[Limit]:
        """List what must hold."""
        name = f"node, {len(self.cameras)} cameras:"
        return [
            Limit(f"{name} memory over one camera's", 1.2, self.memory_ratio, at_most=True),
            Limit(f"{name} fraction of the predictor's rate", 0.95, self.loaded_ratio),
            Limit(f"{name} most over least answered", 1.1, self.fairness, at_most=True),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ratios = {"fairness": self.fairness, "memory_ratio": self.memory_ratio}
        return {**asdict(self), **ratios}


def benchmark_cameras(
    model: Path,
    count: int,
    *,
    seconds: float = 10.0,
    size: tuple[int, int] = (360, 480),
    logs: Path,
    progress: Callable[[str], None] = lambda what: None,
) -> CamerasBenchmark:
    """Start a node with one camera, then one with several, and measure both.

    Args:
        model: a model file.
        count: number of cameras, from 2.
        seconds: length of each measurement.
        size: height and width of the images.
        logs: folder for the processes' logs.
        progress: called with a line at the start of each measurement.

    Raises:
        ProcessError: no ROS, a process that ended early, or a camera without an answer.
        ModelFileError: a model file that cannot be loaded.
    """
    require_ros()
    load_before = os.getloadavg()[0]
    names = tuple(f"camera_{number + 1}" for number in range(count))
    predictor = Predictor.from_pretrained(model)
    outputs = tuple(t for t in OUTPUTS if IMAGE_OUTPUTS[t].needs <= predictor.available_maps)
    maps = frozenset().union(*(IMAGE_OUTPUTS[t].needs for t in outputs))
    remember_image_size(model, size)
    progress("Timing the predictor alone")
    alone = bare_times(predictor, maps, size, np.inf, 20)
    total = FASTER / float(np.median(alone))

    with terminated_as_exit(), Children(ros_environment(), logs) as children:

        def start(cameras: tuple[str, ...]) -> Runner:
            progress(f"Starting the node with {len(cameras)} of {count} cameras")
            parameters = {"model": str(model.resolve()), "cameras": list(cameras)}
            name = f"node_{len(cameras)}"
            node = children.start(name, "emu_perception.ros.run_node", ros_arguments(parameters))
            run = Runner(children, node, seconds, outputs, cameras)
            run.wait_until_active()
            run.warm_up(size)
            return run

        one = start(names[:1])
        progress("One camera")
        one.phase("one", size, total, subscribe=True)
        one_camera_bytes = resident_bytes(one.node.process.pid)
        one.node.stop()

        run = start(names)

        def loaded() -> list[float]:
            progress("Timing the predictor under the load of the cameras")
            with run.background(size, total / count):
                return bare_times(predictor, maps, size, np.inf, max(20, 2 * len(alone)))

        turns: list[tuple[float, float, float]] = []
        answered: Counter[str] = Counter()
        before = loaded()
        for turn in range(TURNS):
            progress(f"{count} cameras, {turn + 1} of {TURNS}")
            phase = run.phase("cameras", size, total / count, subscribe=True)
            after = loaded()
            counts, rate = _answered(phase)
            answered.update(counts)
            reference = 1 / float(np.mean(before + after))
            turns.append((rate, reference, rate / min(reference, phase.sent_rate)))
            before = after
        resident = resident_bytes(run.node.process.pid)
    predictor.close()
    by_camera = {name: answered[f"{name}/image"] for name in names}
    rate, reference, ratio = np.median(turns, axis=0).tolist()
    return CamerasBenchmark(
        model=model.name,
        cameras=names,
        image_size=size,
        rate_hz=total / count,
        answered=by_camera,
        answered_per_second=rate,
        loaded_per_second=reference,
        loaded_ratio=ratio,
        loaded_ratios=tuple(turn[2] for turn in turns),
        one_camera_bytes=one_camera_bytes,
        resident_bytes=resident,
        load_average=(load_before, os.getloadavg()[0]),
    )


def _answered(phase: Phase) -> tuple[Counter[str], float]:
    """Answers by topic, and all answers per second, after the subscriptions have settled."""
    if not phase.sent:
        raise ProcessError("The cameras sent nothing.")
    begin = min(phase.sent.values()) + SETTLING_NS
    end = max(phase.sent.values())
    times = {s: t for s, t in phase.received.items() if s in phase.topics and begin <= t <= end}
    if len(times) < 2:
        raise ProcessError(f"The node answered {len(times)} images, too few to time.")
    duration = (max(times.values()) - min(times.values())) * 1e-9
    return Counter(phase.topics[stamp] for stamp in times), (len(times) - 1) / duration
