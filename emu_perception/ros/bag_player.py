"""Publish the camera of a recorded drive: `ros2 run emu_perception emu_bag_player BAG`.

`ros2 bag play` for images and camera_info, without a ROS installation, that waits for a subscriber
and reports when each image was published, one JSON object a line on standard output. It also
publishes ground truth, from topics of the bag or from folders; and with `--paced` each image waits
until the one before it has been answered, so that none is dropped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from emu_perception.messages.create import image_message
from emu_perception.messages.topics import Encoding
from emu_perception.recordings.image_messages import header_stamp_ns
from emu_perception.recordings.reader import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    BagError,
    BagMessage,
    BagReader,
)
from emu_perception.recordings.truth import (
    KINDS,
    MILLIMETRES,
    TruthFolder,
)
from emu_perception.ros.evaluator_topics import ANSWERED, TRUTH_TOPICS
from emu_perception.ros.programs import report, run_program

TYPES = {IMAGE: Image, COMPRESSED_IMAGE: CompressedImage, CAMERA_INFO: CameraInfo}
SETTLING = 1.5
"""Seconds until a subscriber knows of this publisher, and of the reliability that it offers."""
TAKING = 0.1
"""Seconds in which a changed camera_info reaches the node's callback; images travel apart."""
LOOK_SECONDS = 0.2
"""Seconds between looks whether a signal has ended the program."""
LINGERING = 2.0
"""Seconds for the last messages to be taken before this program, and with it a launch, ends."""


class BagPlayer(Node):
    """Publishes the images of one topic of a bag, the CameraInfo that goes with it, and truth."""

    def __init__(
        self,
        bag: BagReader,
        image_topic: str | None,
        *,
        truth_topics: Mapping[str, str] | None = None,
        folders: Sequence[TruthFolder] = (),
        answer_timeout: float | None = None,
    ) -> None:
        """Args:
        bag: an open recording.
        image_topic: its topic with the images; None where there is only one.
        truth_topics: `labels` and `depth` -> topics of the bag with ground truth.
        folders: files of ground truth.
        answer_timeout: wait so many seconds for the answer to each image before the next is
            published; None plays at the recorded pace.

        Raises:
            BagError: the bag has no such topic, or ground truth of another type.
        """
        super().__init__("bag_player")
        self._bag = bag
        self._folders, self._timeout = folders, answer_timeout
        names = {topic: kind for kind, topic in (truth_topics or {}).items()}
        self.image_topic = bag.image_topic(image_topic, names)
        topics = [self.image_topic]
        camera_info = bag.camera_info_topic(self.image_topic.name)
        if camera_info is not None:
            topics.append(camera_info)
        self._publishers_by_topic = {
            t.name: self._publisher(TYPES[t.msgtype], t.name) for t in topics
        }
        types = {t.name: t.msgtype for t in bag.topics}
        for name, kind in names.items():
            if types.get(name) != IMAGE:
                raise BagError(f"{bag.path}: {name} is {types.get(name, 'missing')}, not {IMAGE}")
            self._publishers_by_topic[name] = self._publisher(Image, TRUTH_TOPICS[kind])
        self._truth = {f.kind: self._publisher(Image, TRUTH_TOPICS[f.kind]) for f in folders}
        self._answers: set[int] = set()
        self.unanswered = 0
        self._executor: SingleThreadedExecutor | None = None
        if answer_timeout is not None:
            self.create_subscription(Header, ANSWERED, self._take_answer, 10)
            self._executor = SingleThreadedExecutor()
            self._executor.add_node(self)

    def _publisher(self, kind: type, topic: str) -> Publisher:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
        )
        return self.create_publisher(kind, topic, qos)

    def wait_for_subscriber(self, timeout: float) -> None:
        """Block until somebody listens to the images, and answers where that is waited for.

        Raises:
            TimeoutError: nobody did within `timeout` seconds.
        """
        publisher = self._publishers_by_topic[self.image_topic.name]
        deadline = time.monotonic() + timeout
        if publisher.get_subscription_count() == 0:
            self.get_logger().info(
                f"waiting up to {timeout:g} s for a subscriber of "
                f"{self.resolve_topic_name(self.image_topic.name)}"
            )
        while publisher.get_subscription_count() == 0:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"nobody subscribed to {self.image_topic.name} within {timeout:g} s"
                )
            self._sleep(0.02)
        while self._timeout is not None and not self.count_publishers(ANSWERED):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no emu_evaluator published {self.resolve_topic_name(ANSWERED)} within "
                    f"{timeout:g} s: it starts when it receives outputs of the node"
                )
            self._sleep(0.02)
        self._sleep(SETTLING)

    def _sleep(self, seconds: float) -> None:
        """Sleep; a recording may pause for minutes, and a signal must not wait for its end.

        Raises:
            ExternalShutdownException: a signal ended the context.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            if not self.context.ok():
                raise ExternalShutdownException

    def play(self, seconds: float) -> None:
        """Publish at most `seconds` of the recording, at its pace or at that of the answers."""
        offset: int | None = None
        images, camera = 0, b""
        for message in self._bag.messages(self._publishers_by_topic, seconds=seconds):
            if offset is None:
                offset = time.monotonic_ns() - message.time_ns
            if self._timeout is None:
                self._sleep((message.time_ns + offset - time.monotonic_ns()) * 1e-9)
            is_image = message.topic == self.image_topic.name
            if is_image:
                self._publish_truth(images, message)
                images += 1
            published_ns = time.monotonic_ns()
            self._publishers_by_topic[message.topic].publish(message.data)
            if is_image:
                stamp_ns = header_stamp_ns(message.data)
                report({"stamp_ns": stamp_ns, "published_ns": published_ns})
                self._wait_for_answer(stamp_ns)
            elif message.msgtype == CAMERA_INFO and message.data[12:] != camera:
                camera = message.data[12:]  # what follows the stamp
                if self._timeout is not None:
                    time.sleep(TAKING)
        for publisher in (*self._publishers_by_topic.values(), *self._truth.values()):
            publisher.wait_for_all_acked(Duration(seconds=5))
        if self._timeout is not None:
            time.sleep(LINGERING)
            print(f"{images - self.unanswered} of {images} images answered", file=sys.stderr)

    def _publish_truth(self, index: int, message: BagMessage) -> None:
        """The files of an image, with its header, before the image itself."""
        for folder in self._folders:
            file = folder.find(index, header_stamp_ns(message.data))
            if file is None:
                continue  # the evaluator counts it
            try:
                values = folder.read(file)
            except ValueError as error:
                self.get_logger().warning(f"{file}: {error}")
                continue
            recorded = self._bag.decode(message).header
            header = Header(frame_id=recorded.frame_id)
            header.stamp.sec, header.stamp.nanosec = recorded.stamp.sec, recorded.stamp.nanosec
            encoding: Encoding = "mono8" if folder.kind == "labels" else "32FC1"
            self._truth[folder.kind].publish(image_message(header, encoding, values))

    def _take_answer(self, header: Header) -> None:
        self._answers.add(header.stamp.sec * 1_000_000_000 + header.stamp.nanosec)

    def _wait_for_answer(self, stamp_ns: int) -> None:
        if self._timeout is None or self._executor is None:
            return
        deadline = time.monotonic() + self._timeout
        while stamp_ns not in self._answers and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.1)
        if stamp_ns not in self._answers:
            self.unanswered += 1
            self.get_logger().warning(f"no answer to {stamp_ns} ns within {self._timeout:g} s")
        self._answers.clear()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The program's options; what is for ROS is left out."""
    parser = argparse.ArgumentParser(prog="emu_bag_player", description=__doc__)
    parser.add_argument("bag", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--image-topic", help="the topic with the images, if there are several")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for a subscriber")
    parser.add_argument(
        "--paced", action="store_true", help="publish each image when the last one was answered"
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for each answer")
    parser.add_argument("--labels", type=Path, help="folder of label PNGs")
    parser.add_argument("--depth", type=Path, help="folder of 16-bit depth PNGs")
    parser.add_argument("--match", choices=("index", "stamp"), default="index", help="whose files")
    parser.add_argument("--depth-scale", type=float, default=MILLIMETRES, help="metres per unit")
    parser.add_argument("--labels-topic", help="topic of the bag with true labels")
    parser.add_argument("--depth-topic", help="topic of the bag with true depth")
    return parser.parse_args(remove_ros_args(list(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one bag; the exit status is 1 where that failed, 3 where images were not answered."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)

    def play() -> int:
        folders = [
            TruthFolder.open(kind, getattr(options, kind), options.match, options.depth_scale)
            for kind in KINDS
            if getattr(options, kind) is not None
        ]
        topics = {"labels": options.labels_topic, "depth": options.depth_topic}
        with BagReader(options.bag) as bag:
            player = BagPlayer(
                bag,
                options.image_topic,
                truth_topics={kind: topic for kind, topic in topics.items() if topic},
                folders=folders,
                answer_timeout=options.timeout if options.paced else None,
            )
            player.wait_for_subscriber(options.wait)
            player.play(options.seconds)
        return 3 if player.unanswered else 0

    # BagError is a ValueError.
    return run_program(play, ValueError, TimeoutError, ros_arguments=given)


if __name__ == "__main__":
    sys.exit(main())
