"""Publish images at a fixed rate: `python -m emu_perception.ros.benchmark_camera --size 1920x1080`.

A stand-in for a camera driver: rgb8, reliable, five kept. It reports the images that it publishes,
one JSON object a line on standard output.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterable, Sequence

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from emu_perception.benchmark.node_runner import camera_image
from emu_perception.messages.create import image_message
from emu_perception.ros.programs import report, run_program


class BenchmarkCamera(Node):
    """Publishes images with new stamps, on one topic or several in turn.

    Args:
        sizes: heights and widths; they take turns of a second each.
        topics: of the images.
        camera_info: whether `camera_info` is published too, before each image.
        loop_seconds: stamps go back to the first after so many seconds; 0: never.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        topics: Sequence[str],
        camera_info: bool = False,
        loop_seconds: float = 0.0,
    ) -> None:
        super().__init__("benchmark_camera")
        header = Header(frame_id="camera_optical_frame")
        self._messages = [image_message(header, "rgb8", camera_image(*size)) for size in sizes]
        self._infos = [_camera_info(header, *size) for size in sizes]
        self._loop_ns = round(loop_seconds * 1e9)
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
        )
        self._images = {topic: self.create_publisher(Image, topic, qos) for topic in topics}
        self._info_publisher = None
        if camera_info:
            self._info_publisher = self.create_publisher(CameraInfo, "camera_info", qos)

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

    def run(self, rate: float, seconds: float = math.inf, report_every: int = 1) -> None:
        """Publish on each topic at `rate` Hz, for some seconds or until the process is ended.

        A late image delays none of the next. The topics follow each other at equal intervals. One
        in `report_every` images is reported.
        """
        begin, first_ns = time.monotonic(), time.time_ns()
        topics = list(self._images)
        interval = 1 / (rate * len(topics))
        numbers: Iterable[int] = itertools.count()
        if math.isfinite(seconds):
            numbers = range(max(1, round(rate * seconds)) * len(topics))
        for index in numbers:
            time.sleep(max(0.0, begin + index * interval - time.monotonic()))
            topic = topics[index % len(topics)]
            size = int(index * interval) % len(self._messages)
            stamp_ns = time.time_ns()
            if self._loop_ns:
                stamp_ns = first_ns + (stamp_ns - first_ns) % self._loop_ns
            for message in (self._infos[size], self._messages[size]):
                stamp = message.header.stamp
                stamp.sec, stamp.nanosec = divmod(stamp_ns, 10**9)
            published_ns = time.monotonic_ns()
            if self._info_publisher is not None:
                self._info_publisher.publish(self._infos[size])
            self._images[topic].publish(self._messages[size])
            sent = index + 1
            if sent % report_every == 0:
                event = {"stamp_ns": stamp_ns, "published_ns": published_ns, "topic": topic}
                report({"sent": sent, **event})
        for images in self._images.values():
            images.wait_for_all_acked(Duration(seconds=5))


def _camera_info(header: Header, height: int, width: int) -> CameraInfo:
    focal = 0.9 * width
    info = CameraInfo(header=header, height=height, width=width, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
    info.p = [*info.k[:3], 0.0, *info.k[3:6], 0.0, *info.k[6:], 0.0]
    return info


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(height), int(width)


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish; the exit status is 1 where nobody subscribed in time."""
    parser = argparse.ArgumentParser(prog="benchmark_camera", description=__doc__)
    parser.add_argument("--size", type=_size, action="append", required=True, help="WIDTHxHEIGHT")
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long to publish")
    parser.add_argument(
        "--wait", type=float, default=0.0, help="seconds to wait for a subscriber; 0: don't"
    )
    parser.add_argument("--loop", type=float, default=0.0, help="seconds after which stamps repeat")
    parser.add_argument("--camera-info", action="store_true", help="publish camera_info too")
    parser.add_argument("--report-every", type=int, default=1, help="images per report")
    parser.add_argument("topics", nargs="*", default=["image"], help="topics to publish on")
    options = parser.parse_args(arguments)

    def publish() -> None:
        camera = BenchmarkCamera(options.size, options.topics, options.camera_info, options.loop)
        if options.wait > 0:
            camera.wait_for_subscriber(options.wait)
        camera.run(options.rate, options.seconds, options.report_every)

    return run_program(publish, TimeoutError)


if __name__ == "__main__":
    sys.exit(main())
