"""Drive in, maps out: play a bag to the real node over DDS and record what it answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from emu_perception.cli.demo.drive import image_stamps
from emu_perception.inference.model_file import DeployedModel, LoadedModel, open_model
from emu_perception.processes import (
    Child,
    Children,
    ProcessError,
    require_ros,
    require_running,
    ros_arguments,
    ros_environment,
    terminated_as_exit,
)
from emu_perception.recordings.reader import (
    COMPRESSED_IMAGE,
    IMAGE,
    BagReader,
)

NODE_MODULE = "emu_perception.ros.run_node"
NODE = "emu_perception"
"""Its name in the ROS graph."""
DEPTH_UNCERTAINTY = "/depth/uncertainty"
MAP_TOPICS = {
    "semantic": ("/semantic/labels", "/semantic/confidence", "/semantic/uncertainty"),
    "depth": ("/depth/image", DEPTH_UNCERTAINTY),
}
"""Recorded topics of each task that the demo shows."""
DIAGNOSTICS = ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")

START_SECONDS = 180.0
"""For the node to import, load and warm up; far more than it needs."""
QUIET_SECONDS = 3.0
"""Without an answer after the last frame was sent, the rest counts as dropped."""


@dataclass(frozen=True)
class DemoResult:
    """Measured figures. Latency is from publishing an image to receiving its last map."""

    frames_sent: int
    frames_answered: int
    frames_dropped: int
    sent_rate_hz: float
    answered_rate_hz: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_max_ms: float
    node_start_s: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def run_demo(
    bag: Path,
    recording: Path,
    model: Path,
    *,
    seconds: float = math.inf,
    image_topic: str | None = None,
    logs: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> DemoResult:
    """Start the node, play the bag to it, and record its answers, each in a process of its own.

    Args:
        bag: the recording to play, at its own pace.
        recording: the bag that is written.
        seconds: of the recording to play.
        image_topic: its topic with the images, if there are several.
        logs: folder for the processes' logs.
        progress: called with `"start"` or `"frames"`, a count and its total.

    Raises:
        ProcessError: no ROS, a process that ended early, or a node that answered nothing.
        BagError: a bag that cannot be played.
        ModelFileError: a model file that cannot be loaded.
    """
    require_ros()
    topics = recorded_topics(open_model(model))
    with BagReader(bag) as reader:
        source = reader.image_topic(image_topic)
        camera_info = reader.camera_info_topic(source.name)
        stamps = image_stamps(reader, source.name, seconds)

    compressed = source.msgtype == COMPRESSED_IMAGE
    if compressed and not source.name.endswith("/compressed"):
        raise ProcessError(
            f"{bag}: compressed images on {source.name}; image_transport's rule, which the node "
            "follows, wants a topic that ends in /compressed"
        )
    parameters = {"model": str(model.resolve()), "autostart": True}
    if compressed:
        parameters["image_transport"] = "compressed"
    remappings = {"image": source.name.removesuffix("/compressed")}
    if camera_info is not None:
        remappings["camera_info"] = camera_info.name

    with terminated_as_exit(), Children(ros_environment(), logs) as children:
        begin = time.monotonic()
        node = children.start("node", NODE_MODULE, ros_arguments(parameters, remappings))
        recorder = children.start(
            "recorder",
            "emu_perception.ros.bag_recorder",
            _recorder_args(recording, topics),
            events=True,
        )
        _wait_until_ready(node, recorder, progress)
        node_start = time.monotonic() - begin
        player = children.start(
            "player",
            "emu_perception.ros.bag_player",
            [str(bag), "--image-topic", source.name]
            + ([] if math.isinf(seconds) else ["--seconds", str(seconds)]),
            events=True,
        )
        sent, received = _follow(node, recorder, player, len(stamps), progress)
        if recorder.stop() != 0:
            raise recorder.failure("The recorder did not complete its bag.")
        if not received:
            raise node.failure(
                f"The node is active but answered none of {len(sent)} images; its log may show why."
            )
    return _summary(sent, received, node_start)


def recorded_topics(model: LoadedModel | DeployedModel) -> list[str]:
    """Topics of the maps that the node publishes for a model and that the demo shows.

    Raises:
        ProcessError: there is none.
    """
    topics = [topic for task in model.spec.tasks for topic in MAP_TOPICS.get(task, ())]
    if not model.traits.depth_variance and DEPTH_UNCERTAINTY in topics:
        topics.remove(DEPTH_UNCERTAINTY)
    if not topics:
        raise ProcessError(f"{model.path} predicts neither classes nor depth: nothing to show")
    return topics


def _recorder_args(recording: Path, topics: Sequence[str]) -> list[str]:
    arguments = [str(recording), "--node", NODE, "--also", "=".join(DIAGNOSTICS)]
    for topic in topics:
        arguments += ["--topic", f"{topic}={IMAGE}"]
    return arguments


def _wait_until_ready(
    node: Child, recorder: Child, progress: Callable[[str, int, int], None]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    progress("start", 0, 1)
    while time.monotonic() < deadline:
        require_running(node, recorder)
        for event in recorder.new_events():
            if event["event"] == "ready":
                progress("start", 1, 1)
                return
            if event["event"] == "not_active":
                raise node.failure(f"The node did not become active; it is {event['state']}.")
        time.sleep(0.02)
    raise node.failure(f"The node did not become active within {START_SECONDS:g} s.")


def _follow(
    node: Child,
    recorder: Child,
    player: Child,
    total: int,
    progress: Callable[[str, int, int], None],
) -> tuple[dict[int, int], dict[int, int]]:
    """Collect when each stamp was sent and answered, until no more answers come."""
    sent: dict[int, int] = {}
    received: dict[int, int] = {}
    played = False
    last_news = time.monotonic()
    while True:
        # In this order: a player that has ended has reported all it sent.
        played = not player.running
        events = list(player.new_events())
        for event in events:
            sent[event["stamp_ns"]] = event["published_ns"]
        for event in recorder.new_events():
            if event["event"] == "frame":
                received[event["stamp_ns"]] = event["received_ns"]
                events.append(event)
        if events:
            last_news = time.monotonic()
            progress("frames", len(received), total)
        if played and player.process.returncode != 0:
            raise player.failure("The player failed.")
        require_running(node, recorder)
        if (
            played
            and sent
            and (len(received) >= len(sent) or time.monotonic() - last_news > QUIET_SECONDS)
        ):
            return sent, received
        time.sleep(0.02)


def _summary(sent: dict[int, int], received: dict[int, int], node_start: float) -> DemoResult:
    answered = sorted(stamp for stamp in received if stamp in sent)
    latencies = np.array([received[s] - sent[s] for s in answered]) * 1e-6
    p50, p95 = np.percentile(latencies, (50, 95))
    return DemoResult(
        frames_sent=len(sent),
        frames_answered=len(answered),
        frames_dropped=len(sent) - len(answered),
        sent_rate_hz=_rate(list(sent.values())),
        answered_rate_hz=_rate([received[s] for s in answered]),
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        latency_max_ms=float(latencies.max()),
        node_start_s=node_start,
    )


def _rate(times_ns: list[int]) -> float:
    if len(times_ns) < 2:
        return 0.0
    return (len(times_ns) - 1) / max((max(times_ns) - min(times_ns)) * 1e-9, 1e-9)
