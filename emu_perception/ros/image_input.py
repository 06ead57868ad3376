"""The image and camera_info subscriptions of one camera."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from emu_perception.ros.serialized import read_image

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo

IMAGE_INPUT = "image"
CAMERA_INFO_INPUT = "camera_info"
CAMERA_INFO_SECONDS = 1.0
"""How long images are held for the first camera_info while it has a publisher."""
DISCOVERY_SECONDS = 0.5
"""How long they are held after subscribing, until its publisher must have been discovered."""
HELD_PERIOD = 0.02
"""Seconds between looks at an image that is held."""
KEPT_INFOS = 32
"""Newest camera_infos among which that of an image's stamp is looked up."""
RELIABILITY = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}
_NO_SEQUENCE_NUMBER = 2**64 - 1


def offered_reliability(node: Node, topic: str) -> ReliabilityPolicy | None:
    """Strictest reliability that all publishers of a topic offer; None without publishers."""
    offered = [p.qos_profile.reliability for p in node.get_publishers_info_by_topic(topic)]
    if not offered:
        return None
    if all(reliability == ReliabilityPolicy.RELIABLE for reliability in offered):
        return ReliabilityPolicy.RELIABLE
    return ReliabilityPolicy.BEST_EFFORT


@dataclass(frozen=True)
class Frame:
    """An image message on its way through the node."""

    serialized: bytes
    """The message as received. Most images of a fast camera are replaced before decoding."""
    message_type: type
    """sensor_msgs Image or CompressedImage."""
    received: float
    """Steady clock, seconds."""

    @functools.cached_property
    def message(self) -> Any:
        """An object with the fields of `message_type`."""
        if self.message_type is Image:
            return read_image(self.serialized)
        return deserialize_message(self.serialized, self.message_type)


class ImageInput:
    """Subscribes to the camera while it is open.

    Images are held, the newest of them, until the first camera_info has come: depth in metres
    follows from its focal length. An image without one is passed on if camera_info has no publisher
    or stays silent for `CAMERA_INFO_SECONDS`.

    Args:
        node: its owner.
        prefix: of the topics' names: empty, or a camera's name and a slash.
        transport: `raw` or `compressed`.
        reliability: `auto`, `reliable` or `best_effort`.
        on_received: called with the number of images that were lost before each; must return at
            once.
        on_frame: called with each image that is not held any more; must return at once.
        on_overtaken: called where a newer image took the place of one that was held.
        on_unwanted: called where the input closes while an image is held.
        on_silence: called with a message where camera_info stayed silent.
    """

    def __init__(
        self,
        node: Node,
        prefix: str,
        transport: str,
        reliability: str,
        *,
        on_received: Callable[[int], None],
        on_frame: Callable[[Frame], None],
        on_overtaken: Callable[[], None],
        on_unwanted: Callable[[], None],
        on_silence: Callable[[str], None],
    ) -> None:
        self._node = node
        self._prefix = prefix
        self._compressed = transport == "compressed"
        self._message_type = CompressedImage if self._compressed else Image
        self._reliability = reliability
        self._on_received, self._on_frame = on_received, on_frame
        self._on_overtaken, self._on_silence = on_overtaken, on_silence
        self._on_unwanted = on_unwanted
        self._lock = threading.Lock()
        self._image: Subscription | None = None
        self._camera_info: Subscription | None = None
        self._latched = False
        self._infos: OrderedDict[tuple[int, int], CameraInfo] = OrderedDict()
        self._sequence: dict[bytes, int] = {}
        self._held: Frame | None = None
        self._held_since = 0.0
        self._opened = 0.0
        self._silent = False
        self._timer = node.create_timer(
            HELD_PERIOD, self._release_held, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()

    @property
    def image_topic(self) -> str:
        """Full name of the raw image topic; remapping `image` also moves its compressed sibling."""
        return self._node.resolve_topic_name(self._prefix + IMAGE_INPUT)

    @property
    def topic(self) -> str:
        """Full name of the topic that is subscribed to."""
        return self.image_topic + ("/compressed" if self._compressed else "")

    def transport_problem(self) -> str:
        """Why no image can come although a camera publishes: the other transport; empty if not."""
        raw, compressed = self.image_topic, f"{self.image_topic}/compressed"
        other, transport = (raw, "raw") if self._compressed else (compressed, "compressed")
        if self._node.count_publishers(self.topic) or not self._node.count_publishers(other):
            return ""
        return (
            f"{self.topic} has no publisher, but {other} has one: set the parameter "
            f"image_transport to {transport}"
        )

    @property
    def camera_info_topic(self) -> str:
        """Full name of the camera_info topic."""
        return self._node.resolve_topic_name(self._prefix + CAMERA_INFO_INPUT)

    @property
    def is_open(self) -> bool:
        """Whether there is a subscription."""
        return self._image is not None

    def open(self) -> None:
        """Subscribe; if already subscribed, adapt to what the publishers offer."""
        reliability, latched = self._choose_reliability(), self._camera_info_is_latched()
        with self._lock:
            if self._image is None:
                self._opened, self._held_since, self._silent = time.monotonic(), 0.0, False
            if self._image is None or self._image.qos_profile.reliability != reliability:
                self._subscribe_image(reliability)
            if self._camera_info is None or self._latched != latched:
                self._subscribe_camera_info(latched)

    def _subscribe_image(self, reliability: ReliabilityPolicy) -> None:
        if self._image is not None:
            self._node.destroy_subscription(self._image)
        self._sequence.clear()
        self._image = self._node.create_subscription(
            self._message_type,
            self.topic,
            self._receive,
            QoSProfile(depth=1, reliability=reliability),
            raw=True,
            # None of their own: events would have to be destroyed under the executor's feet.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            # The reliability has a parameter of its own.
            qos_overriding_options=QoSOverridingOptions(
                (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)
            ),
        )

    def _subscribe_camera_info(self, latched: bool) -> None:
        if self._camera_info is not None:
            self._node.destroy_subscription(self._camera_info)
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        if latched:
            qos.reliability = ReliabilityPolicy.RELIABLE
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        self._latched = latched
        self._camera_info = self._node.create_subscription(
            CameraInfo,
            self.camera_info_topic,
            self._receive_camera_info,
            qos,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def close(self) -> None:
        """Drop the subscriptions; the newest camera_infos are kept."""
        self._timer.cancel()
        with self._lock:
            held, self._held = self._held, None
            for subscription in (self._image, self._camera_info):
                if subscription is not None:
                    self._node.destroy_subscription(subscription)
            self._image = self._camera_info = None
        if held is not None:
            self._on_unwanted()

    def _choose_reliability(self) -> ReliabilityPolicy:
        if self._reliability in RELIABILITY:
            return RELIABILITY[self._reliability]
        return offered_reliability(self._node, self.topic) or ReliabilityPolicy.BEST_EFFORT

    def _camera_info_is_latched(self) -> bool:
        """Whether all who publish it keep it for late subscribers: some drivers do so once."""
        publishers = self._node.get_publishers_info_by_topic(self.camera_info_topic)
        return bool(publishers) and all(
            p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers
        )

    def camera_info(self, stamp: Any) -> CameraInfo | None:
        """That of an image: with the same stamp, else the newest; None before the first."""
        with self._lock:
            exact = self._infos.get((stamp.sec, stamp.nanosec))
            return exact or next(reversed(self._infos.values()), None)

    def destroy(self) -> None:
        """Drop the subscriptions and the timer."""
        self.close()
        self._node.destroy_timer(self._timer)

    def _receive(self, serialized: bytes, info: MessageInfo) -> None:
        frame = Frame(serialized, self._message_type, time.monotonic())
        self._on_received(self._count_lost(info))
        if not self._waits_for_camera_info():
            self._on_frame(frame)
            return
        with self._lock:
            overtaken, self._held = self._held, frame
        self._timer.reset()
        if overtaken is not None:
            self._on_overtaken()

    def _receive_camera_info(self, message: CameraInfo) -> None:
        stamp = message.header.stamp
        with self._lock:
            self._infos.pop((stamp.sec, stamp.nanosec), None)
            self._infos[stamp.sec, stamp.nanosec] = message
            while len(self._infos) > KEPT_INFOS:
                self._infos.popitem(last=False)
        self._release_held()

    def _waits_for_camera_info(self) -> bool:
        """Whether an image must wait: the first camera_info can still come."""
        if self._infos or self._silent:
            return False
        now = time.monotonic()
        if not self._node.count_publishers(self.camera_info_topic):
            self._held_since = 0.0
            return now < self._opened + DISCOVERY_SECONDS
        self._held_since = self._held_since or now
        if now < self._held_since + CAMERA_INFO_SECONDS:
            return True
        self._silent = True
        self._on_silence(
            f"no camera_info came on {self.camera_info_topic} within {CAMERA_INFO_SECONDS:g} s "
            "although it has a publisher: until one comes, depth follows the parameter "
            "focal_length, or else the model's default focal length"
        )
        return False

    def _release_held(self) -> None:
        if self._waits_for_camera_info():
            return
        self._timer.cancel()
        with self._lock:
            frame, self._held = self._held, None
        if frame is not None:
            self._on_frame(frame)

    def _count_lost(self, info: MessageInfo) -> int:
        """How many messages of this publisher are missing between the last one and this one.

        A newer message that overwrites one in a queue of depth 1 raises no event, but the
        publisher numbers what it sends.
        """
        number = info.get("publication_sequence_number")
        if number is None or number == _NO_SEQUENCE_NUMBER:
            return 0
        publisher = (info.get("publisher_gid") or {}).get("data", b"")
        last = self._sequence.get(publisher)
        self._sequence[publisher] = number
        # A smaller number is a publisher that began again.
        return number - last - 1 if last is not None and number > last else 0
