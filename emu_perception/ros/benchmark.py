"""What the node costs: frames lost on the way in, time beside the network, work for nobody.

The camera, the node and the subscriber are processes of their own that talk over DDS.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.benchmark.measure import resident_bytes
from emu_perception.demo import DemoError
from emu_perception.demo.processes import (
    Child,
    Children,
    require_running,
    ros_arguments,
    ros_environment,
    terminated_as_exit,
)
from emu_perception.outputs import IMAGE_OUTPUTS
from emu_perception.predictor import Predictor
from emu_perception.ros.benchmark_results import (
    Delivery,
    Idle,
    NodeBenchmark,
    Overload,
    Timing,
)

OUTPUTS = ("semantic/labels", "depth/image", "semantic/uncertainty", "depth/uncertainty")
"""What is subscribed to, as far as the model has it."""
START_SECONDS = 180.0
"""For the node to import, load and warm up; far more than it needs."""
WARM_UP_SECONDS = 8.0
WARM_UP_RATE = 1.0
"""Hz."""
SETTLE_SECONDS = 30.0
"""For the node's counters to come to rest once the camera has ended."""
OVERLOAD_RATE = 60.0
"""Hz at which a camera is faster than the model."""
OVERLOAD_CALLS = 10
"""Of the predictor alone, before and after."""
SUSTAINED = 0.5
"""Share of the predictor's own rate at which images are sent, if no rate is given."""


def benchmark_node(
    model: Path,
    *,
    seconds: float = 10.0,
    size: tuple[int, int] = (480, 640),
    rate: float | None = None,
    camera_size: tuple[int, int] = (1080, 1920),
    camera_rate: float = 30.0,
    logs: Path,
    progress: Callable[[str], None] = lambda what: None,
) -> NodeBenchmark:
    """Start the node and measure it.

    Args:
        model: a model file.
        seconds: length of each measurement.
        size: height and width of the images for timing.
        rate: Hz of the images for timing; by default what the model sustains easily.
        camera_size: height and width of the images whose delivery is counted.
        camera_rate: Hz at which these are sent.
        logs: folder for the processes' logs.
        progress: called with what begins.

    Raises:
        DemoError: no ROS, a process that ended early, or a node that answered nothing.
        ModelFileError: a model file that cannot be loaded.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise DemoError(
            "ROS 2 is missing: source a ROS 2 installation, or install the package with its "
            "extra `ros`"
        )
    load_before = os.getloadavg()[0]
    predictor = Predictor.from_file(model)
    outputs = tuple(t for t in OUTPUTS if IMAGE_OUTPUTS[t].needs <= predictor.available_maps)
    maps = frozenset().union(*(IMAGE_OUTPUTS[t].needs for t in outputs))

    def bare(rate: float, count: int) -> list[float]:
        return _bare_times(predictor, maps, size, rate, count)

    progress("Timing the predictor alone")
    rate = rate or min(camera_rate, SUSTAINED / float(np.median(bare(np.inf, 10))))
    count = max(5, round(rate * seconds / 2))
    with terminated_as_exit(), Children(ros_environment(), logs) as children:
        progress("Starting the node")
        parameters = {"model": str(model.resolve()), "autostart": True}
        node = children.start("node", "emu_perception.ros.node", ros_arguments(parameters))
        run = _Runner(children, node, seconds, outputs)
        run.wait_until_active()
        progress(f"A camera of {camera_size[1]} x {camera_size[0]} at {camera_rate:g} Hz")
        run.warm_up(camera_size)
        delivered = run.phase("delivery", camera_size, camera_rate, subscribe=True)
        run.warm_up(size)
        # Right before and right after the node, so that the machine is as busy with other things.
        progress("Timing the predictor alone")
        alone = bare(rate, count)
        progress(f"Timing the node at {size[1]} x {size[0]}, {rate:.3g} Hz")
        timed = run.phase("timing", size, rate, subscribe=True)
        progress("Timing the predictor alone")
        alone += bare(rate, count)
        overload = run.overload(size, OVERLOAD_RATE, lambda: bare(np.inf, OVERLOAD_CALLS))
        progress("Nobody subscribes")
        idle = run.phase("idle", camera_size, camera_rate, subscribe=False)
    predictor.close()
    about = timed.status["values"]
    return NodeBenchmark(
        model=model.name,
        device=about["device"],
        precision=about["precision"],
        outputs=outputs,
        timing=_timing(timed, alone, size, rate),
        delivery=Delivery(
            image_size=camera_size,
            rate_hz=camera_rate,
            sent_rate_hz=delivered.sent_rate,
            frames_sent=len(delivered.sent),
            frames_received=delivered.counts["received"],
            frames_lost=len(delivered.sent) - delivered.counts["received"],
            frames_answered=delivered.counts["answered"],
        ),
        idle=Idle(
            frames_sent=len(idle.sent),
            frames_received=idle.counts["received"],
            # A frame that was begun ends as one of these.
            inferences=idle.counts["answered"] + idle.counts["bad input: inference"],
        ),
        overload=overload,
        load_average=(load_before, os.getloadavg()[0]),
    )


def _bare_times(
    predictor: Predictor, maps: frozenset[str], size: tuple[int, int], rate: float, count: int
) -> list[float]:
    """Seconds of each call, at the pace of a camera: back to back, the caches stay warmer."""
    from emu_perception.ros.benchmark_camera import camera_image

    image = camera_image(*size)
    times = []
    predictor.predict(image, maps=maps)
    begin = time.monotonic()
    for index in range(count):
        time.sleep(max(0.0, begin + index / rate - time.monotonic()))
        before = time.monotonic()
        predictor.predict(image, maps=maps)
        times.append(time.monotonic() - before)
    return times


@dataclass(frozen=True)
class _Phase:
    sent: dict[int, int]
    """When each stamp was published, nanoseconds of the steady clock."""
    received: dict[int, int]
    """When the last output of each stamp was received."""
    counts: dict[str, int]
    """By how much the node's counters grew."""
    status: dict[str, Any]
    """The first one after the camera had ended: its times are of the seconds before."""

    @property
    def sent_rate(self) -> float:
        times = list(self.sent.values())
        return (len(times) - 1) / ((times[-1] - times[0]) * 1e-9) if len(times) > 1 else 0.0


class _Runner:
    def __init__(
        self, children: Children, node: Child, seconds: float, outputs: tuple[str, ...]
    ) -> None:
        self._children = children
        self._node = node
        self._seconds = seconds
        self._outputs = outputs

    def wait_until_active(self) -> None:
        """Let the node load its model."""
        module = "emu_perception.ros.benchmark_listener"
        listener = self._children.start("start_listener", module, (), events=True)
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
    ) -> _Phase:
        """Let the camera run, with or without a subscriber, and read what the node counted."""
        topics = self._outputs if subscribe else ()
        module = "emu_perception.ros.benchmark_listener"
        listener = self._children.start(f"{name}_listener", module, topics, events=True)
        before = self._wait_until_ready(listener, subscribe)
        height, width = size
        arguments = [f"--height={height}", f"--width={width}", f"--rate={rate}"]
        arguments += [f"--seconds={seconds or self._seconds}", f"--wait={30 if subscribe else 0}"]
        module = "emu_perception.ros.benchmark_camera"
        camera = self._children.start(f"{name}_camera", module, arguments, events=True)
        received: dict[int, int] = {}
        while camera.running:
            require_running(self._node, listener)
            self._listen(listener, received)
            time.sleep(0.05)
        if camera.process.returncode != 0:
            raise camera.failure("The camera failed.")
        statuses = self._settle(listener, received)
        listener.stop()
        camera.stop()
        after = statuses[-1]["values"]
        return _Phase(
            sent={event["stamp_ns"]: event["published_ns"] for event in camera.new_events()},
            received=received,
            counts={
                key: int(after.get(key, 0)) - int(before.get(key, 0))
                for key in ("received", "answered", "dropped", "bad input: inference")
            },
            status=statuses[0],
        )

    def overload(
        self, size: tuple[int, int], rate: float, bare: Callable[[], list[float]]
    ) -> Overload:
        """A camera that is too fast, with the predictor's own rate right before and after."""
        alone = bare()
        process = self._node.process.pid
        before = resident_bytes(process)
        phase = self.phase("overload", size, rate, subscribe=True)
        after = resident_bytes(process)
        alone += bare()
        times = sorted(t for stamp, t in phase.received.items() if stamp in phase.sent)
        latencies = [
            (t - phase.sent[s]) * 1e-6 for s, t in phase.received.items() if s in phase.sent
        ]
        values = phase.status["values"]
        if len(times) < 2 or "inference p50 [ms]" not in values:
            raise DemoError(
                f"The node answered {len(times)} of {len(phase.sent)} images, too few to time; "
                f"its last status was: {phase.status['message']}"
            )
        answered = (len(times) - 1) / ((times[-1] - times[0]) * 1e-9)
        predictor = 1 / float(np.mean(alone))
        return Overload(
            image_size=size,
            rate_hz=rate,
            frames_sent=len(phase.sent),
            frames_answered=len(times),
            frames_dropped=phase.counts["dropped"],
            answered_per_second=answered,
            predictor_per_second=predictor,
            # No node is faster than its camera.
            throughput_ratio=answered / min(predictor, phase.sent_rate),
            latency_p99_ms=float(np.percentile(latencies, 99)),
            latency_limit_ms=2 * float(values["inference p50 [ms]"]) + 10,
            resident_bytes=after,
            resident_growth_bytes=after - before,
        )

    def _listen(self, listener: Child, received: dict[int, int]) -> list[dict[str, Any]]:
        statuses = []
        for event in listener.new_events():
            if event["event"] == "status":
                statuses.append(event)
            else:
                received[event["stamp_ns"]] = event["received_ns"]
        return statuses

    def _wait_until_ready(self, listener: Child, subscribe: bool) -> dict[str, str]:
        """The node's values once it is active and knows whether somebody listens."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            require_running(self._node, listener)
            for status in self._listen(listener, {}):
                message, values = status["message"], status["values"]
                if values["state"] == "active" and message.startswith("idle") != subscribe:
                    return values
                if "failed: " in message:
                    raise self._node.failure(f"The node did not become active: {message}")
            time.sleep(0.05)
        raise self._node.failure(f"The node was not ready within {START_SECONDS:g} s.")

    def _settle(self, listener: Child, received: dict[int, int]) -> list[dict[str, Any]]:
        """Statuses until the counters stand still."""
        statuses: list[dict[str, Any]] = []
        counters = ("received", "answered")
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            require_running(self._node, listener)
            statuses += self._listen(listener, received)
            if len(statuses) >= 3:
                last = [[s["values"][c] for c in counters] for s in statuses[-2:]]
                if last[0] == last[1]:
                    return statuses
            time.sleep(0.05)
        raise self._node.failure(f"The node's counters did not settle in {SETTLE_SECONDS:g} s.")


def _timing(phase: _Phase, alone: list[float], size: tuple[int, int], rate: float) -> Timing:
    latencies = [(t - phase.sent[s]) * 1e-6 for s, t in phase.received.items() if s in phase.sent]
    values = phase.status["values"]
    if not latencies or "inference p50 [ms]" not in values:
        raise DemoError(
            f"The node answered {len(latencies)} of {len(phase.sent)} images, too few to time; "
            f"its last status was: {phase.status['message']}"
        )
    median = float(np.median(alone)) * 1e3
    inference = float(values["inference p50 [ms]"])
    p50, p95 = np.percentile(latencies, (50, 95))
    return Timing(
        image_size=size,
        rate_hz=rate,
        frames_sent=len(phase.sent),
        frames_answered=len(latencies),
        predictor_mean_ms=float(np.mean(alone)) * 1e3,
        predictor_median_ms=median,
        inference_p50_ms=inference,
        inference_p95_ms=float(values["inference p95 [ms]"]),
        overhead_p50_ms=float(values["overhead p50 [ms]"]),
        overhead_p95_ms=float(values["overhead p95 [ms]"]),
        inference_ratio=inference / median,
        node_latency_p50_ms=float(values["latency p50 [ms]"]),
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
    )
