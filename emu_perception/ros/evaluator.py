"""Score the node's published maps live: `ros2 run emu_perception emu_evaluator`.

The same figures, page and `report.json` as `emu bag evaluate --published`, from topics. What the
maps don't tell, such as the likelihood of the true class, is left to the offline evaluation.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from emu_perception.allocator import keep_large_blocks
from emu_perception.evaluation.frames import FrameLog
from emu_perception.evaluation.report import SUMMARY, Report, write_report
from emu_perception.inference.model_file import read_spec
from emu_perception.inference.model_names import resolve_model_path
from emu_perception.messages.images import (
    map_values,
    rgb_from_compressed,
    rgb_from_image,
)
from emu_perception.recordings.matching import (
    WAITING,
    Matched,
    StampMatcher,
)
from emu_perception.recordings.problems import IMPERFECT, Problems
from emu_perception.recordings.published import MAP_TOPICS, OFFLINE_ONLY
from emu_perception.recordings.scoring import RecordedFrame, Scorer
from emu_perception.recordings.synchronised import published_prediction, truth_of
from emu_perception.recordings.truth import depth_of, labels_of
from emu_perception.ros.evaluator_topics import ANSWERED, TRUTH_TOPICS
from emu_perception.ros.image_input import offered_reliability
from emu_perception.ros.usage import evaluator_usage, is_asked_for_help

NODE_NAME = "emu_evaluator"
CAMERA = "image"
PERIOD = 1.0
"""Seconds between diagnostics, and for which the set of publishers must hold still."""
DEPTH = 10
"""Messages kept per topic while a frame is scored."""
DRAINING = 0.5
"""Seconds to process messages that have arrived when the node is to end."""


@dataclass
class _Input:
    """One topic."""

    kind: type
    topic: str
    receive: Callable[[Any], None]
    subscription: Subscription


class EvaluatorNode(Node):
    """Subscribes to the node's maps and to ground truth, brings them together by stamp, scores.

    Raises:
        ValueError: the model cannot be used.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(NODE_NAME, **arguments)
        self.declare_parameter("model", "")
        self.declare_parameter("report", "report")
        self.declare_parameter("image_transport", "raw")
        self.declare_parameter("depth_scale", 1e-3)
        self.declare_parameter("replicates", 1000)
        self._model = resolve_model_path(self.get_parameter("model").value)
        self._spec = read_spec(self._model)
        self._label_set = self._spec.label_set if "semantic" in self._spec.tasks else None
        self.folder = Path(self.get_parameter("report").value)
        self.problems = Problems()
        self._log = FrameLog(self.folder)
        self.scorer = Scorer(self._spec, self.problems, self._log)
        self._matcher = StampMatcher(self._expected)
        self._publishing: set[str] = set()
        """Maps and kinds of ground truth that somebody publishes or has published."""
        self._answered: Any = None
        self._scored: deque[int] = deque(maxlen=WAITING)
        """Stamps whose image may still come."""
        self._inputs: list[_Input] = []
        # First: of what has arrived, the executor takes that of the oldest subscription.
        if self.get_parameter("image_transport").value == "compressed":
            topic = f"{self.resolve_topic_name(CAMERA)}/compressed"
            self._listen(CompressedImage, topic, CAMERA, rgb_from_compressed)
        else:
            self._listen(Image, CAMERA, CAMERA, rgb_from_image)
        for topic in MAP_TOPICS:
            self._listen(Image, topic, topic, map_values)
        scale = self.get_parameter("depth_scale").value
        self._listen(Image, TRUTH_TOPICS["labels"], "labels", labels_of)
        self._listen(Image, TRUTH_TOPICS["depth"], "depth", partial(depth_of, scale=scale))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DEPTH)
        # The node's own clock stands still when a looping bag jumps back in time.
        self.create_timer(PERIOD, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def finish(self) -> Path | None:
        """Score what is left and write the report; None where nothing could be scored."""
        for matched in self._matcher.finish():
            self._score(matched)
        try:
            result = self.scorer.result(self.get_parameter("replicates").value)
        except ValueError as error:
            self.get_logger().error(f"no report: {error}")
            self._log.discard()
            return None
        about = {
            "maps": ", ".join(map(self.resolve_topic_name, self._maps)),
            "model": f"{self._model.name} ({self._spec.architecture}, {self._spec.backbone})",
            "calibrated on": self._spec.calibration.fitted_on or "nothing",
        }
        report = Report(
            f"{self._model.stem}, live",
            about,
            self._label_set,
            self.problems.values(),
            reasons=OFFLINE_ONLY,
            extra={"model": str(self._model)},
        )
        return write_report(self.folder, report, result, self._log)

    def _listen(self, kind: type, topic: str, source: str, convert: Callable[[Any], Any]) -> None:
        receive = partial(self._receive, source, convert)
        subscription = self._subscribe(kind, topic, receive, ReliabilityPolicy.RELIABLE)
        self._inputs.append(_Input(kind, topic, receive, subscription))

    def _subscribe(
        self, kind: type, topic: str, receive: Callable[[Any], None], reliability: ReliabilityPolicy
    ) -> Subscription:
        qos = QoSProfile(depth=DEPTH, reliability=reliability)
        return self.create_subscription(kind, topic, receive, qos)

    def _adapt_reliability(self) -> None:
        """Receive also from publishers that offer best effort, as many cameras do."""
        for each in self._inputs:
            offered = offered_reliability(self, self.resolve_topic_name(each.topic))
            if offered not in (None, each.subscription.qos_profile.reliability):
                self.destroy_subscription(each.subscription)
                each.subscription = self._subscribe(each.kind, each.topic, each.receive, offered)

    @property
    def _maps(self) -> list[str]:
        return [topic for topic in MAP_TOPICS if topic in self._publishing]

    @property
    def _truths(self) -> list[str]:
        return [kind for kind in TRUTH_TOPICS if kind in self._publishing]

    def _look_around(self) -> bool:
        """Whether the same are publishing as at the last look."""
        found = {topic for topic in MAP_TOPICS if self.count_publishers(topic)}
        found |= {kind for kind, topic in TRUTH_TOPICS.items() if self.count_publishers(topic)}
        same = found <= self._publishing
        self._publishing |= found
        return same

    def _expected(self) -> list[str]:
        # The image is only to look at: it travels apart, and is not waited for.
        return [*(self._maps or MAP_TOPICS), *self._truths]

    def _receive(self, source: str, convert: Callable[[Any], Any], message: Any) -> None:
        header = message.header
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        if source == CAMERA and stamp_ns in self._scored:
            return  # overtaken by its maps: they were scored without a picture
        try:
            part = convert(message)
        except ValueError as error:
            self.problems.count(f"unusable {source}", f"stamp {stamp_ns} ns: {error}")
            return
        self._look_around()
        finished = list(self._matcher.add(source, stamp_ns, part))
        complete = self._matcher.has(stamp_ns, self._maps) or any(
            matched.stamp_ns == stamp_ns for matched in finished
        )
        if self._answered is not None and source in MAP_TOPICS and complete:
            self._answered.publish(Header(stamp=header.stamp, frame_id=header.frame_id))
        for matched in finished:
            self._score(matched)

    def _score(self, matched: Matched) -> None:
        classes = len(self._label_set) if self._label_set else 0
        prediction = published_prediction(matched, self._maps, classes, self.problems)
        if prediction is None:
            return
        truth = truth_of(matched, self._truths, prediction.size, self.problems)
        frame = RecordedFrame(
            matched.number,
            matched.stamp_ns,
            matched.parts.get(CAMERA),
            labels=truth.get("labels"),
            depth=truth.get("depth"),
        )
        self.scorer.add(frame, prediction)
        self._scored.append(matched.stamp_ns)

    def _tick(self) -> None:
        self._adapt_reliability()
        if self._look_around() and self._answered is None and self._maps:
            # Who paces a recording by the answers begins when this topic is there: until now the
            # node may not have known all of this node's subscriptions.
            self._answered = self.create_publisher(Header, ANSWERED, DEPTH)
        status = self._status()
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))

    def _status(self) -> DiagnosticStatus:
        evaluator = self.scorer.evaluator
        figures = evaluator.result(replicates=0)
        values: dict[str, str] = {
            key: str(figures[key]) for key in ("frames", "frames_with_labels", "frames_with_depth")
        }
        known = figures.scalars()
        for key, (name, unit, _) in SUMMARY.items():
            if key in known:
                task = "" if key.startswith("mean") else f"{key.partition('.')[0]} "
                suffix = f" [{unit}]" if unit else ""
                values[f"{task}{name}{suffix}"] = f"{known[key]:.4g}"
        problems = self.problems.values()
        values |= {f"problem: {kind}": str(found["count"]) for kind, found in problems.items()}
        return DiagnosticStatus(
            name=self.get_fully_qualified_name(),
            hardware_id="none",
            level=DiagnosticStatus.WARN if problems else DiagnosticStatus.OK,
            message=f"{evaluator.frames} frames scored",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )


def main(args: list[str] | None = None) -> int:
    """Entry point of `emu_evaluator`; the exit status is that of `emu bag evaluate`."""
    if is_asked_for_help(sys.argv[1:] if args is None else args):
        print(evaluator_usage())
        return 0
    keep_large_blocks()
    # rclpy's own handlers would end the context under a callback, and with it what still waits.
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = EvaluatorNode()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"emu_evaluator cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stopping.is_set():
        executor.spin_once(timeout_sec=0.1)
    end = time.monotonic() + DRAINING
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    page = node.finish()
    print(page if page else "nothing was scored", file=sys.stderr)
    rclpy.try_shutdown()
    if page is None:
        return 1
    return IMPERFECT if node.problems else 0


if __name__ == "__main__":
    sys.exit(main())
