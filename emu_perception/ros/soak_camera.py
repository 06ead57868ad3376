"""The camera of a soak test: `python -m emu_perception.ros.soak_camera --size 640x480 --rate 30`.

Publishes until it is ended. Every ten images it reports how many it has sent, one JSON object a
line on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from emu_perception.benchmark.node_runner import camera_image
from emu_perception.messages.create import image_message
from emu_perception.ros.programs import run_program


class SoakCamera(Node):
    """Publishes images and camera_info; sizes take turns of a second each.

    Args:
        sizes: heights and widths.
        loop_seconds: stamps go back to the first after so many seconds; 0: never.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], loop_seconds: float) -> None:
        super().__init__("soak_camera")
        header = Header(frame_id="camera_optical_frame")
        self._images = [image_message(header, "rgb8", camera_image(*size)) for size in sizes]
        self._infos = [_camera_info(header, *size) for size in sizes]
        self._loop = loop_seconds
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self.create_publisher(Image, "image", qos)
        self._info_publisher = self.create_publisher(CameraInfo, "camera_info", qos)

    def run(self, rate: float) -> None:
        """Publish at `rate` Hz until the process is ended."""
        begin, start = time.monotonic(), time.time()
        sent = 0
        while True:
            due = begin + sent / rate
            time.sleep(max(0.0, due - time.monotonic()))
            seconds = sent / rate
            index = int(seconds) % len(self._images)
            stamp = start + (seconds % self._loop if self._loop else seconds)
            for message in (self._infos[index], self._images[index]):
                message.header.stamp.sec = int(stamp)
                message.header.stamp.nanosec = int(stamp % 1 * 1e9)
            self._info_publisher.publish(self._infos[index])
            self._publisher.publish(self._images[index])
            sent += 1
            if sent % 10 == 0:
                print(json.dumps({"sent": sent}), flush=True)


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
    """Publish until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="soak_camera", description=__doc__)
    parser.add_argument("--size", type=_size, action="append", required=True, help="WIDTHxHEIGHT")
    parser.add_argument("--rate", type=float, default=30.0, help="Hz")
    parser.add_argument("--loop", type=float, default=0.0, help="seconds after which stamps repeat")
    options = parser.parse_args(arguments)
    return run_program(lambda: SoakCamera(options.size, options.loop).run(options.rate))


if __name__ == "__main__":
    sys.exit(main())
