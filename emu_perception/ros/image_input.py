"""The image and camera_info subscriptions: created when somebody listens to the outputs."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo

IMAGE_TOPIC = "image"
CAMERA_INFO_TOPIC = "camera_info"
RELIABILITY = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}
_NO_SEQUENCE_NUMBER = 2**64 - 1


def offered_reliability(node: Node, topic: str) -> ReliabilityPolicy | None:
    """The most reliable that hears all publishers of a topic; None where there is none."""
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
    """As it was received: most images of a fast camera are overtaken, and never looked at."""
    message_type: type
    """sensor_msgs Image or CompressedImage."""
    camera_info: Any | None
    """The newest CameraInfo when the image came."""
    received: float
    """Steady clock, seconds."""

    @functools.cached_property
    def message(self) -> Any:
        """Of `message_type`."""
        return deserialize_message(self.serialized, self.message_type)


class ImageInput:
    """Subscribes to the camera while it is open.

    Args:
        node: its owner.
        transport: `raw` or `compressed`.
        reliability: `auto`, `reliable` or `best_effort`.
        on_frame: called with each image and how many were lost before it; must return at once.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        reliability: str,
        on_frame: Callable[[Frame, int], None],
    ) -> None:
        self._node = node
        self._compressed = transport == "compressed"
        self._message_type = CompressedImage if self._compressed else Image
        self._reliability = reliability
        self._on_frame = on_frame
        self._lock = threading.Lock()
        self._image: Subscription | None = None
        self._camera_info: Subscription | None = None
        self._latched = False
        self._newest_info: CameraInfo | None = None
        self._sequence: dict[bytes, int] = {}

    @property
    def image_topic(self) -> str:
        """Full name of the raw image topic; remapping `image` also moves its compressed sibling."""
        return self._node.resolve_topic_name(IMAGE_TOPIC)

    @property
    def topic(self) -> str:
        """Full name of the topic that is subscribed to."""
        return self.image_topic + ("/compressed" if self._compressed else "")

    @property
    def camera_info_topic(self) -> str:
        """Full name of the camera_info topic."""
        return self._node.resolve_topic_name(CAMERA_INFO_TOPIC)

    @property
    def is_open(self) -> bool:
        """Whether there is a subscription."""
        return self._image is not None

    def open(self) -> None:
        """Subscribe; if already subscribed, adapt to what the publishers offer."""
        reliability, latched = self._choose_reliability(), self._camera_info_is_latched()
        with self._lock:
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
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        if latched:
            qos.reliability = ReliabilityPolicy.RELIABLE
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        self._latched = latched
        self._camera_info = self._node.create_subscription(
            CameraInfo,
            CAMERA_INFO_TOPIC,
            self._receive_camera_info,
            qos,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def close(self) -> None:
        """Drop the subscriptions; the newest camera_info is kept."""
        with self._lock:
            for subscription in (self._image, self._camera_info):
                if subscription is not None:
                    self._node.destroy_subscription(subscription)
            self._image = self._camera_info = None

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

    def _receive(self, serialized: bytes, info: MessageInfo) -> None:
        frame = Frame(serialized, self._message_type, self._newest_info, time.monotonic())
        self._on_frame(frame, self._count_lost(info))

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._newest_info = message

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
