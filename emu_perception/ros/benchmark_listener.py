"""Listen to the node: `python -m emu_perception.ros.benchmark_listener TOPIC …`.

Reports on standard output, one JSON object a line, each status of the node (`"event": "status"`)
and each stamp whose images have come on all topics (`"frame"`). Without topics it only reads
/diagnostics.
"""

from __future__ import annotations

import argparse
import json
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
from emu_perception.ros.programs import run_program


class BenchmarkListener(Node):
    """Receives images serialized, as a program in another language would cost no more."""

    def __init__(self, topics: Sequence[str]) -> None:
        super().__init__("benchmark_listener")
        self._topics = frozenset(topics)
        self._arrived: dict[int, set[str]] = {}
        for topic in self._topics:
            qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
            self.create_subscription(Image, topic, partial(self._receive, topic), qos, raw=True)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._read, 10)

    def _receive(self, topic: str, data: bytes) -> None:
        received_ns = time.monotonic_ns()
        stamp_ns = header_stamp_ns(data)
        arrived = self._arrived.setdefault(stamp_ns, set())
        arrived.add(topic)
        if arrived == self._topics:
            del self._arrived[stamp_ns]
            _report({"event": "frame", "stamp_ns": stamp_ns, "received_ns": received_ns})

    def _read(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            _report({"event": "status", "message": status.message, "values": values})


def _report(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="benchmark_listener", description=__doc__)
    parser.add_argument("topics", nargs="*", help="topics with images")
    options = parser.parse_args(arguments)
    return run_program(lambda: rclpy.spin(BenchmarkListener(options.topics)))


if __name__ == "__main__":
    sys.exit(main())
