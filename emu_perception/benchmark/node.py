"""Cost of the node: lost frames, overhead, work without subscribers.

The camera, the node and the subscriber are processes of their own that talk over DDS.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emu_perception.benchmark.measure import resident_bytes
from emu_perception.benchmark.node_results import (
    Delivery,
    Idle,
    Load,
    NodeBenchmark,
    Overload,
    Throughput,
    Timing,
)
from emu_perception.benchmark.node_runner import Phase, Runner, camera_image
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

OUTPUTS = ("semantic/labels", "depth/image", "semantic/uncertainty", "depth/uncertainty")
"""Subscribed topics, if the model has them."""
OVERLOAD_RATE = 60.0
"""Hz at which a camera is faster than the model."""
FASTER = 1.25
"""Rate of a camera that keeps the node busy, over the predictor's own."""
TURNS = 3
"""Turns of the predictor alone and the node, for the throughput: a machine's speed drifts by more
than what a node costs."""
BARE_SECONDS = 2.0
"""Seconds of the predictor alone, before and after each turn of the node."""
SUSTAINED = 0.5
"""Fraction of the predictor's own rate at which images are sent, if no rate is given."""
FIXED_RATES = (10.0, 30.0, 60.0)
"""Hz, as ros2_benchmark sends them."""
PEAK_STEPS = 4
"""Halvings of the interval in which the peak rate lies."""


def benchmark_node(
    model: Path,
    *,
    seconds: float = 10.0,
    size: tuple[int, int] = (480, 640),
    rate: float | None = None,
    camera_size: tuple[int, int] = (1080, 1920),
    camera_rate: float = 30.0,
    sweep: bool = False,
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
        sweep: also images of both sizes at fixed rates, and at the highest one that is sustained.
        logs: folder for the processes' logs.
        progress: called with what begins.

    Raises:
        ProcessError: no ROS, a process that ended early, or a node that answered nothing.
        ModelFileError: a model file that cannot be loaded.
    """
    require_ros()
    load_before = os.getloadavg()[0]
    predictor = Predictor.from_pretrained(model)
    outputs = tuple(t for t in OUTPUTS if IMAGE_OUTPUTS[t].needs <= predictor.available_maps)
    maps = frozenset().union(*(IMAGE_OUTPUTS[t].needs for t in outputs))

    def bare(rate: float, count: int) -> list[float]:
        return bare_times(predictor, maps, size, rate, count)

    progress("Timing the predictor alone")
    rate = rate or min(camera_rate, SUSTAINED / float(np.median(bare(np.inf, 10))))
    count = max(5, round(rate * seconds / 2))
    with terminated_as_exit(), Children(ros_environment(), logs) as children:
        progress("Starting the node")
        # As one that has met this camera before, and holds in memory what it needs for it alone.
        remember_image_size(model, size)
        parameters = {"model": str(model.resolve()), "autostart": True}
        node = children.start("node", "emu_perception.ros.run_node", ros_arguments(parameters))
        run = Runner(children, node, seconds, outputs)
        run.wait_until_active()
        run.warm_up(size)
        # Right before and right after the node, so that the machine is as busy with other things.
        progress("Timing the predictor alone")
        alone = bare(rate, count)
        progress(f"Timing the node at {size[1]} x {size[0]}, {rate:.3g} Hz")
        timed = run.phase("timing", size, rate, subscribe=True)
        progress("Timing the predictor alone")
        alone += bare(rate, count)
        unpaced = bare(np.inf, max(10, round(BARE_SECONDS / float(np.median(alone)))))
        camera = FASTER / float(np.mean(unpaced))

        def loaded() -> list[float]:
            with run.background(size, camera):
                return bare(np.inf, len(unpaced))

        turns, under_load = [], loaded()
        for turn in range(TURNS):
            progress(f"Throughput at {size[1]} x {size[0]}, {turn + 1} of {TURNS}")
            busy = run.phase("throughput", size, camera, subscribe=True)
            after, after_loaded = bare(np.inf, len(unpaced)), loaded()
            rates = (1 / float(np.mean(x)) for x in (unpaced + after, under_load + after_loaded))
            turns.append(_turn(busy, *rates))
            unpaced, under_load = after, after_loaded
        throughput = _throughput(turns, size)
        progress(f"A camera of {size[1]} x {size[0]} at {OVERLOAD_RATE:g} Hz")
        before = resident_bytes(run.node.process.pid)
        overloaded = run.phase("overload", size, OVERLOAD_RATE, subscribe=True)
        overload = _overload(overloaded, size, before, resident_bytes(run.node.process.pid))
        progress(f"A camera of {camera_size[1]} x {camera_size[0]} at {camera_rate:g} Hz")
        run.warm_up(camera_size)
        delivered = run.phase("delivery", camera_size, camera_rate, subscribe=True)
        sizes = [size, camera_size] if sweep else []
        loads = [_fixed_rates(run, each, progress) for each in sizes]
        peaks = [
            _peak(run, each, done, throughput.predictor_per_second, progress)
            for each, done in zip(sizes, loads, strict=True)
        ]
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
        throughput=throughput,
        overload=overload,
        loads=tuple(load for of_size in loads for load in of_size),
        peaks=tuple(peaks),
        load_average=(load_before, os.getloadavg()[0]),
    )


def bare_times(
    predictor: Predictor, maps: frozenset[str], size: tuple[int, int], rate: float, count: int
) -> list[float]:
    """Seconds of each call, at the pace of a camera: back to back, the caches stay warmer."""
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


def _load(phase: Phase, size: tuple[int, int], rate: float) -> Load:
    latencies = phase.latencies_ms
    p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (None, None)
    return Load(
        image_size=size,
        rate_hz=rate,
        frames_sent=len(phase.sent),
        frames_answered=len(latencies),
        latency_p50_ms=None if p50 is None else float(p50),
        latency_p99_ms=None if p99 is None else float(p99),
    )


def _fixed_rates(run: Runner, size: tuple[int, int], progress: Callable[[str], None]) -> list[Load]:
    run.warm_up(size)
    loads = []
    for rate in FIXED_RATES:
        progress(f"A camera of {size[1]} x {size[0]} at {rate:g} Hz")
        loads.append(_load(run.phase("load", size, rate, subscribe=True), size, rate))
    return loads


def _peak(
    run: Runner,
    size: tuple[int, int],
    known: list[Load],
    ceiling: float,
    progress: Callable[[str], None],
) -> Load:
    """The highest rate that the node sustains, by bisection.

    Args:
        run: of the node.
        size: of the images.
        known: loads of this size.
        ceiling: Hz, the predictor's own rate: no node is faster.
        progress: called with what begins.
    """
    found = max((load for load in known if load.sustained), key=lambda x: x.rate_hz, default=None)
    failed = [load for load in known if not load.sustained]
    if not failed:
        assert found is not None
        return found
    low = found.rate_hz if found else 0.0
    high = max(low, min(1.1 * ceiling, min(load.rate_hz for load in failed)))
    for _ in range(PEAK_STEPS):
        rate = (low + high) / 2
        progress(f"A camera of {size[1]} x {size[0]} at {rate:.3g} Hz: is it sustained?")
        load = _load(run.phase("peak", size, rate, subscribe=True), size, rate)
        if load.sustained:
            found, low = load, rate
        else:
            failed.append(load)
            high = rate
    return found or min(failed, key=lambda load: load.rate_hz)


def _answered_per_second(phase: Phase) -> float:
    times = sorted(t for stamp, t in phase.received.items() if stamp in phase.sent)
    if len(times) < 2:
        raise _too_few(phase)
    return (len(times) - 1) / ((times[-1] - times[0]) * 1e-9)


class _Turn(NamedTuple):
    """Rates in Hz and ratios of one turn."""

    camera: float
    node: float
    predictor: float
    ratio: float
    loaded: float
    loaded_ratio: float


def _turn(phase: Phase, predictor: float, loaded: float) -> _Turn:
    """Rates of the node and of the predictor around it, without and with equal load."""
    answered, sent = _answered_per_second(phase), phase.sent_rate
    # No node is faster than its camera.
    ratios = (answered / min(rate, sent) for rate in (predictor, loaded))
    return _Turn(sent, answered, predictor, next(ratios), loaded, next(ratios))


def _throughput(turns: list[_Turn], size: tuple[int, int]) -> Throughput:
    median = _Turn(*np.median(turns, axis=0).tolist())
    return Throughput(
        image_size=size,
        rate_hz=median.camera,
        answered_per_second=median.node,
        predictor_per_second=median.predictor,
        ratio=median.ratio,
        ratios=tuple(turn.ratio for turn in turns),
        loaded_per_second=median.loaded,
        loaded_ratio=median.loaded_ratio,
        loaded_ratios=tuple(turn.loaded_ratio for turn in turns),
    )


def _overload(phase: Phase, size: tuple[int, int], before: int, after: int) -> Overload:
    """Measure a camera that is far too fast; `before`, `after`: the node's bytes in memory."""
    values = phase.status["values"]
    if "inference p50 [ms]" not in values:
        raise _too_few(phase)
    return Overload(
        image_size=size,
        rate_hz=OVERLOAD_RATE,
        frames_sent=len(phase.sent),
        frames_answered=len(phase.latencies_ms),
        frames_dropped=phase.counts["dropped"],
        answered_per_second=_answered_per_second(phase),
        latency_p99_ms=float(np.percentile(phase.latencies_ms, 99)),
        node_latency_p99_ms=float(values["latency p99 [ms]"]),
        latency_limit_ms=2 * float(values["inference p50 [ms]"]) + 10,
        resident_bytes=after,
        resident_growth_bytes=after - before,
    )


def _too_few(phase: Phase) -> ProcessError:
    return ProcessError(
        f"The node answered {len(phase.latencies_ms)} of {len(phase.sent)} images, too few to "
        f"time; its last status was: {phase.status['message']}"
    )


def _timing(phase: Phase, alone: list[float], size: tuple[int, int], rate: float) -> Timing:
    latencies = phase.latencies_ms
    values = phase.status["values"]
    if not latencies or "inference p50 [ms]" not in values:
        raise _too_few(phase)
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
