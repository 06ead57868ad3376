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
    """Publishes one image again and again, with new stamps."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__("benchmark_camera")
        header = Header(frame_id="camera_optical_frame")
        self._message = image_message(header, "rgb8", camera_image(height, width))
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
        )
        self._images = self.create_publisher(Image, "image", qos)

    def wait_for_subscriber(self, timeout: float) -> None:
        """Block until somebody listens.

        Raises:
            TimeoutError: nobody did within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self._images.get_subscription_count() == 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody subscribed to the camera within {timeout:g} s")
            time.sleep(0.02)
        # The node takes up to a second to adopt the reliability that this camera offers.
        time.sleep(2.0)

    def run(self, rate: float, seconds: float) -> None:
        """Publish for some seconds at `rate` Hz; a late image delays none of the next."""
        begin = time.monotonic()
        for index in range(max(1, round(rate * seconds))):
            time.sleep(max(0.0, begin + index / rate - time.monotonic()))
            stamp_ns = time.time_ns()
            stamp = self._message.header.stamp
            stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
            published_ns = time.monotonic_ns()
            self._images.publish(self._message)
            print(json.dumps({"stamp_ns": stamp_ns, "published_ns": published_ns}), flush=True)
        self._images.wait_for_all_acked(Duration(seconds=5))


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
    options = parser.parse_args(arguments)

    def publish() -> None:
        camera = BenchmarkCamera(options.height, options.width)
        if options.wait > 0:
            camera.wait_for_subscriber(options.wait)
        camera.run(options.rate, options.seconds)

    return run_program(publish, TimeoutError)


if __name__ == "__main__":
    sys.exit(main())
