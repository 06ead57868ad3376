"""Listen to the node: `python -m emu_perception.ros.benchmark_listener TOPIC …`.

Reports on standard output, one JSON object a line, each status of the node (`"event": "status"`)
and each stamp whose images have come on all topics (`"frame"`). Without topics it only reads
/diagnostics.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from emu_perception.recordings.image_messages import header_stamp_ns
from emu_perception.ros.programs import report, run_program


class BenchmarkListener(Node):
    """Receives images serialized, as a program in another language would cost no more.

    Args:
        topics: relative to each camera.
        cameras: namespaces of the topics.
    """

    def __init__(self, topics: Sequence[str], cameras: Sequence[str]) -> None:
        super().__init__("benchmark_listener")
        self._topics = frozenset(topics)
        self._arrived: dict[tuple[str, int], set[str]] = {}
        for camera in cameras:
            for topic in self._topics:
                qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
                name = f"{camera}/{topic}" if camera else topic
                receive = partial(self._receive, camera, topic)
                self.create_subscription(Image, name, receive, qos, raw=True)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._read, 10)

    def _receive(self, camera: str, topic: str, data: bytes) -> None:
        received_ns = time.monotonic_ns()
        stamp_ns = header_stamp_ns(data)
        arrived = self._arrived.setdefault((camera, stamp_ns), set())
        arrived.add(topic)
        if arrived == self._topics:
            del self._arrived[camera, stamp_ns]
            report({"event": "frame", "stamp_ns": stamp_ns, "received_ns": received_ns})

    def _read(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            event = {"event": "status", "name": status.name, "message": status.message}
            report({**event, "values": values})


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="benchmark_listener", description=__doc__)
    parser.add_argument("topics", nargs="*", help="topics with images")
    parser.add_argument("--camera", action="append", help="namespace of the topics")
    options = parser.parse_args(arguments)
    cameras = options.camera or [""]
    return run_program(lambda: rclpy.spin(BenchmarkListener(options.topics, cameras)))


if __name__ == "__main__":
    sys.exit(main())
