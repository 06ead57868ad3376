"""Publish images at a fixed rate: `python -m emu_perception.ros.benchmark_camera --size 1920x1080`.

A stand-in for a camera driver: rgb8 on `image`, reliable, five kept. It reports when each image was
published, one JSON object a line on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from emu_perception.benchmark.node_runner import camera_image
from emu_perception.messages.create import image_message
from emu_perception.ros.programs import run_program


class BenchmarkCamera(Node):
    """Publishes one image again and again, with new stamps, on one topic or several in turn."""

    def __init__(self, height: int, width: int, topics: Sequence[str]) -> None:
        super().__init__("benchmark_camera")
        header = Header(frame_id="camera_optical_frame")
        self._message = image_message(header, "rgb8", camera_image(height, width))
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
        )
        self._images = {topic: self.create_publisher(Image, topic, qos) for topic in topics}

    def wait_for_subscriber(self, timeout: float) -> None:
        """Block until every topic has a subscriber.

        Raises:
            TimeoutError: one has none within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not all(images.get_subscription_count() for images in self._images.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody subscribed to the camera within {timeout:g} s")
            time.sleep(0.02)
        # The node takes up to a second to adopt the reliability that this camera offers.
        time.sleep(2.0)

    def run(self, rate: float, seconds: float) -> None:
        """Publish on each topic for some seconds at `rate` Hz.

        A late image delays none of the next. The topics follow each other at equal intervals.
        """
        begin = time.monotonic()
        topics = list(self._images)
        interval = 1 / (rate * len(topics))
        for index in range(max(1, round(rate * seconds)) * len(topics)):
            time.sleep(max(0.0, begin + index * interval - time.monotonic()))
            topic = topics[index % len(topics)]
            stamp_ns = time.time_ns()
            stamp = self._message.header.stamp
            stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
            published_ns = time.monotonic_ns()
            self._images[topic].publish(self._message)
            event = {"stamp_ns": stamp_ns, "published_ns": published_ns, "topic": topic}
            print(json.dumps(event), flush=True)
        for images in self._images.values():
            images.wait_for_all_acked(Duration(seconds=5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish; the exit status is 1 where nobody subscribed in time."""
    parser = argparse.ArgumentParser(prog="benchmark_camera", description=__doc__)
    parser.add_argument("--height", type=int, required=True, help="pixels")
    parser.add_argument("--width", type=int, required=True, help="pixels")
    parser.add_argument("--rate", type=float, required=True, help="Hz")
    parser.add_argument("--seconds", type=float, required=True, help="how long to publish")
    parser.add_argument(
        "--wait", type=float, default=0.0, help="seconds to wait for a subscriber; 0: don't"
    )
    parser.add_argument("topics", nargs="*", default=["image"], help="topics to publish on")
    options = parser.parse_args(arguments)

    def publish() -> None:
        camera = BenchmarkCamera(options.height, options.width, options.topics)
        if options.wait > 0:
            camera.wait_for_subscriber(options.wait)
        camera.run(options.rate, options.seconds)

    return run_program(publish, TimeoutError)


if __name__ == "__main__":
    sys.exit(main())
