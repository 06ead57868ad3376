"""Publish the camera of a recorded drive: `python -m emu_perception.ros.bag_player BAG …`.

`ros2 bag play` for images and camera_info, without a ROS installation, that waits for a subscriber
and reports when each image was published, one JSON object a line on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from emu_perception.bags.messages import header_stamp_ns
from emu_perception.bags.reader import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, BagError, BagReader

TYPES = {IMAGE: Image, COMPRESSED_IMAGE: CompressedImage, CAMERA_INFO: CameraInfo}


class BagPlayer(Node):
    """Publishes the images of one topic of a bag, and the CameraInfo that goes with it."""

    def __init__(self, bag: BagReader, image_topic: str | None) -> None:
        """Args:
        bag: an open recording.
        image_topic: its topic with the images; None where there is only one.
        """
        super().__init__("bag_player")
        self._bag = bag
        self.image_topic = bag.image_topic(image_topic)
        topics = [self.image_topic]
        camera_info = bag.camera_info_topic(self.image_topic.name)
        if camera_info is not None:
            topics.append(camera_info)
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
        )
        self._publishers_by_topic: dict[str, Publisher] = {
            t.name: self.create_publisher(TYPES[t.msgtype], t.name, qos) for t in topics
        }

    def wait_for_subscriber(self, timeout: float) -> None:
        """Block until somebody listens to the images.

        Raises:
            TimeoutError: nobody did within `timeout` seconds.
        """
        publisher = self._publishers_by_topic[self.image_topic.name]
        deadline = time.monotonic() + timeout
        while publisher.get_subscription_count() == 0:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"nobody subscribed to {self.image_topic.name} within {timeout:g} s"
                )
            time.sleep(0.02)
        # The subscriber learns of this publisher a moment later, and the node takes up to a second
        # more to ask for the reliability that it offers.
        time.sleep(1.5)

    def play(self, seconds: float) -> None:
        """Publish at the recorded pace, for at most `seconds` of the recording."""
        topics = list(self._publishers_by_topic)
        offset: int | None = None
        for message in self._bag.messages(topics, seconds=seconds):
            if offset is None:
                offset = time.monotonic_ns() - message.time_ns
            time.sleep(max(0, message.time_ns + offset - time.monotonic_ns()) * 1e-9)
            published_ns = time.monotonic_ns()
            self._publishers_by_topic[message.topic].publish(message.data)
            if message.topic == self.image_topic.name:
                report = {"stamp_ns": header_stamp_ns(message.data), "published_ns": published_ns}
                print(json.dumps(report), flush=True)
        for publisher in self._publishers_by_topic.values():
            publisher.wait_for_all_acked(Duration(seconds=5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one bag; the exit status is 1 where that failed."""
    parser = argparse.ArgumentParser(prog="bag_player", description=__doc__)
    parser.add_argument("bag", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--image-topic", help="the topic with the images, if there are several")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for a subscriber")
    options = parser.parse_args(arguments)
    rclpy.init(args=[])
    try:
        with BagReader(options.bag) as bag:
            player = BagPlayer(bag, options.image_topic)
            player.wait_for_subscriber(options.wait)
            player.play(options.seconds)
    except (BagError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
