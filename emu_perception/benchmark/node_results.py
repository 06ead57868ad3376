"""Results of a benchmark of the node, and their limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from emu_perception.benchmark.limits import Limit

DROPPED = 0.05
"""Fraction of images that may be dropped at a rate that counts as sustained."""
GROWTH_BYTES = 20_000_000
"""Growth of resident memory that a phase allows: allocators keep some."""


@dataclass(frozen=True)
class Timing:
    """The node compared with the bare predictor, on the same images at the same rate."""

    image_size: tuple[int, int]
    """Height and width."""
    rate_hz: float
    frames_sent: int
    frames_answered: int
    predictor_mean_ms: float
    """The predictor alone, called in this process before and after the node was."""
    predictor_median_ms: float
    inference_p50_ms: float
    """The same call in the node."""
    inference_p95_ms: float
    overhead_p50_ms: float
    """The node's own work per frame: converting, rendering, publishing."""
    overhead_p95_ms: float
    inference_ratio: float
    """The call's median in the node over that of the predictor alone."""
    node_latency_p50_ms: float
    """From the image's callback to the last output."""
    latency_p50_ms: float
    """From publishing the image to the receipt of the last output."""
    latency_p95_ms: float


@dataclass(frozen=True)
class Delivery:
    """How many images of a camera reach the node's callback while it computes."""

    image_size: tuple[int, int]
    """Height and width."""
    rate_hz: float
    """Requested rate."""
    sent_rate_hz: float
    """Rate that the camera reached."""
    frames_sent: int
    frames_received: int
    frames_lost: int
    """Sent and not received."""
    frames_answered: int


@dataclass(frozen=True)
class Idle:
    """Work of the node without subscribers."""

    frames_sent: int
    frames_received: int
    inferences: int


@dataclass(frozen=True)
class Throughput:
    """How many images a second the node answers, under a camera a little faster than the model.

    Node and predictor took turns; all figures are medians over these.
    """

    image_size: tuple[int, int]
    """Height and width."""
    rate_hz: float
    """Rate that the camera reached."""
    answered_per_second: float
    predictor_per_second: float
    """The predictor alone, back to back, before and after the node."""
    ratio: float
    ratios: tuple[float, ...]
    """Turn by turn."""
    loaded_per_second: float
    """The predictor while the camera publishes and the subscriber takes the images."""
    loaded_ratio: float
    """The node's rate over that: both under the same load, it measures the node alone."""
    loaded_ratios: tuple[float, ...]

    def claims(self) -> list[Limit]:
        """Return the limits with their measured values."""
        name = "node: fraction of the predictor's rate under equal load"
        return [Limit(name, 0.95, self.loaded_ratio)]


@dataclass(frozen=True)
class Overload:
    """The node under a camera that is far faster than the model."""

    image_size: tuple[int, int]
    """Height and width."""
    rate_hz: float
    frames_sent: int
    frames_answered: int
    frames_dropped: int
    """Dropped frames as the node counts them."""
    answered_per_second: float
    latency_p99_ms: float
    """From publishing the image to the receipt of its last output."""
    node_latency_p99_ms: float
    """From the image's callback to the last output."""
    latency_limit_ms: float
    """Two inference times of the node and 10 ms."""
    resident_bytes: int
    """Resident memory of the node's process at the end."""
    resident_growth_bytes: int
    """Since the phase began."""

    def claims(self) -> list[Limit]:
        """Return the limits with their measured values."""
        return [
            Limit(
                f"node, {self.rate_hz:g} Hz: ms of the 99th percentile of a frame's age",
                self.latency_limit_ms,
                self.node_latency_p99_ms,
                at_most=True,
            ),
            Limit("node: MB of resident memory", 1000, self.resident_bytes / 1e6, at_most=True),
            Limit(
                "node: MB by which it grew meanwhile",
                GROWTH_BYTES / 1e6,
                self.resident_growth_bytes / 1e6,
                at_most=True,
            ),
        ]


@dataclass(frozen=True)
class Load:
    """The node under a camera of some rate."""

    image_size: tuple[int, int]
    """Height and width."""
    rate_hz: float
    frames_sent: int
    frames_answered: int
    latency_p50_ms: float | None
    """From publishing the image to the receipt of its last output; None: nothing was answered."""
    latency_p99_ms: float | None

    @property
    def dropped_share(self) -> float:
        """Fraction of the sent images without an output."""
        return 1 - self.frames_answered / self.frames_sent

    @property
    def sustained(self) -> bool:
        """Fewer than `DROPPED` of the images are left out, as ros2_benchmark judges."""
        return self.dropped_share < DROPPED


@dataclass(frozen=True)
class NodeBenchmark:
    """All results of one run."""

    model: str
    device: str
    precision: str
    outputs: tuple[str, ...]
    timing: Timing
    delivery: Delivery
    idle: Idle
    throughput: Throughput
    overload: Overload
    loads: tuple[Load, ...]
    """At fixed rates, by size."""
    peaks: tuple[Load, ...]
    """By size, at the highest rate that was found to be sustained; of none, at the lowest tried."""
    load_average: tuple[float, float]
    """Load average of the last minute, before and after."""

    def claims(self) -> list[Limit]:
        """Return the limits with their measured values."""
        return [*self.throughput.claims(), *self.overload.claims()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
