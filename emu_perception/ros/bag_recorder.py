"""Record topics: `python -m emu_perception.ros.bag_recorder BAG --topic NAME=TYPE …`.

`ros2 bag record` without a ROS installation. It tells on standard output, one JSON object a line,
when the watched node is active with every topic published (`"event": "ready"`), when it failed to
get there (`"not_active"`), and when all topics have brought the message of one stamp (`"frame"`).
SIGINT or SIGTERM completes the bag.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future

from emu_perception.recordings.image_messages import header_stamp_ns
from emu_perception.recordings.reader import BagError
from emu_perception.recordings.writer import BagWriter
from emu_perception.ros.programs import report, run_program

GIVE_UP_SECONDS = 5.0
"""A node that autostarts and rests this long in another state than active has failed."""
RESTING_STATES = (
    State.PRIMARY_STATE_UNCONFIGURED,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_FINALIZED,
)
ASK_AGAIN_SECONDS = 1.0
"""An answer sent before the node has discovered this client is lost."""


class BagRecorder(Node):
    """Writes what arrives on some topics into a bag, serialized as it came."""

    def __init__(
        self,
        writer: BagWriter,
        frame_topics: dict[str, str],
        other_topics: dict[str, str],
        watched_node: str,
        report: Callable[[dict[str, object]], None],
    ) -> None:
        """Args:
        writer: an open bag.
        frame_topics: names and types of topics with a header, one message per camera image.
        other_topics: names and types of further topics.
        watched_node: name of the lifecycle node that publishes them.
        report: called with each event.
        """
        super().__init__("bag_recorder")
        self._writer = writer
        self._frame_topics = frame_topics
        self._report = report
        self._arrived: dict[int, set[str]] = {}
        self._waiting_since: float | None = None
        self._asked: Future | None = None
        self._asked_at = 0.0
        for topic, msgtype in {**frame_topics, **other_topics}.items():
            package, _, name = msgtype.split("/")
            qos = QoSProfile(
                history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE
            )
            self.create_subscription(
                getattr(importlib.import_module(f"{package}.msg"), name),
                topic,
                partial(self._record, topic, msgtype),
                qos,
                raw=True,
            )
        self._client: Client = self.create_client(GetState, f"{watched_node}/get_state")
        self._timer = self.create_timer(0.1, self._watch)

    def _record(self, topic: str, msgtype: str, data: bytes) -> None:
        received_ns = time.monotonic_ns()
        self._writer.write_cdr(topic, msgtype, data, time.time_ns())
        if topic not in self._frame_topics:
            return
        stamp_ns = header_stamp_ns(data)
        arrived = self._arrived.setdefault(stamp_ns, set())
        arrived.add(topic)
        if len(arrived) == len(self._frame_topics):
            del self._arrived[stamp_ns]
            self._report({"event": "frame", "stamp_ns": stamp_ns, "received_ns": received_ns})

    def _watch(self) -> None:
        now = time.monotonic()
        if self._asked is not None and self._asked.done():
            answer = self._asked.result()
            self._asked = None
            if answer is not None:
                self._judge(answer.current_state)
        elif self._asked is not None and now - self._asked_at > ASK_AGAIN_SECONDS:
            self._client.remove_pending_request(self._asked)
            self._asked = None
        if (
            self._asked is None
            and not self._timer.is_canceled()
            and self._client.service_is_ready()
        ):
            self._asked = self._client.call_async(GetState.Request())
            self._asked_at = now

    def _judge(self, state: State) -> None:
        if state.id == State.PRIMARY_STATE_ACTIVE:
            if all(self.count_publishers(topic) for topic in self._frame_topics):
                self._timer.cancel()
                self._report({"event": "ready"})
            return
        if state.id not in RESTING_STATES:
            self._waiting_since = None
            return
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > GIVE_UP_SECONDS:
            self._timer.cancel()
            self._report({"event": "not_active", "state": state.label})


def _topic(text: str) -> tuple[str, str]:
    name, _, msgtype = text.partition("=")
    if msgtype.count("/") != 2:
        raise argparse.ArgumentTypeError(f"expected NAME=package/msg/Type, got '{text}'")
    return name, msgtype


def main(arguments: Sequence[str] | None = None) -> int:
    """Record until SIGINT or SIGTERM; the exit status is 1 where that failed."""
    parser = argparse.ArgumentParser(prog="bag_recorder", description=__doc__)
    parser.add_argument("bag", help="rosbag2 folder to write")
    parser.add_argument(
        "--topic", type=_topic, action="append", default=[], help="NAME=TYPE, one per image"
    )
    parser.add_argument("--also", type=_topic, action="append", default=[], help="NAME=TYPE")
    parser.add_argument(
        "--node", default="emu_perception", help="lifecycle node that publishes them"
    )
    options = parser.parse_args(arguments)

    def record() -> None:
        with BagWriter(options.bag, overwrite=True) as writer:
            recorder = BagRecorder(
                writer,
                dict(options.topic),
                dict(options.also),
                options.node,
                report,
            )
            # Before the block is left: what was recorded until then is worth keeping.
            with suppress(KeyboardInterrupt, ExternalShutdownException):
                rclpy.spin(recorder)

    return run_program(record, BagError)


if __name__ == "__main__":
    sys.exit(main())
