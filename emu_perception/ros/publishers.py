"""The node's outputs as lifecycle publishers, and who listens to them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecyclePublisher
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from emu_perception.messages.compressed import available_siblings
from emu_perception.messages.create import LabelInfo
from emu_perception.messages.topics import (
    CAMERA_INFO_TOPIC,
    LABEL_INFO_TOPIC,
    POINTS_TOPIC,
    available_outputs,
)

DEPTH = 5
"""Messages kept for a slow subscriber."""


class OutputPublishers:
    """One publisher per output that the model can fill.

    Args:
        node: its owner.
        prefix: of the topics' names: empty, or a camera's name and a slash.
        available_maps: names of the `Prediction` fields of the model.
        on_match: called when a subscriber comes or goes.
    """

    def __init__(
        self,
        node: LifecycleNodeMixin,
        prefix: str,
        available_maps: Collection[str],
        on_match: Callable[[], None],
    ) -> None:
        self._node = node
        self._prefix = prefix
        self._on_match = on_match
        self._publishers: dict[str, LifecyclePublisher] = {}
        self._label_info: LifecyclePublisher | None = None
        try:
            for topic in available_outputs(available_maps):
                self._create(Image, topic)
            for topic in available_siblings(available_maps):
                self._create(CompressedImage, topic)
            if "depth" in available_maps:
                self._create(CameraInfo, CAMERA_INFO_TOPIC)
                self._create(PointCloud2, POINTS_TOPIC)
            if "labels" in available_maps and LabelInfo is not None:
                self._label_info = node.create_lifecycle_publisher(
                    LabelInfo,
                    prefix + LABEL_INFO_TOPIC,
                    QoSProfile(
                        depth=1,
                        reliability=ReliabilityPolicy.RELIABLE,
                        durability=DurabilityPolicy.TRANSIENT_LOCAL,
                    ),
                )
        except Exception:
            self.destroy()
            raise

    def _create(self, message_type: Any, topic: str) -> None:
        self._publishers[topic] = self._node.create_lifecycle_publisher(
            message_type,
            self._prefix + topic,
            # A profile of its own for each: overriding by parameters changes the object.
            QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE),
            event_callbacks=PublisherEventCallbacks(matched=lambda _: self._on_match()),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def wanted(self) -> list[str]:
        """Topics that somebody subscribes to."""
        return [t for t, p in self._publishers.items() if p.get_subscription_count() > 0]

    def publish(self, topic: str, message: Any) -> None:
        """Publish on one of the `wanted` topics."""
        self._publishers[topic].publish(message)

    @property
    def has_label_info(self) -> bool:
        """Whether class names are published: vision_msgs is installed, the model has classes."""
        return self._label_info is not None

    def publish_label_info(self, message: Any) -> None:
        """Publish the class names; late subscribers get them too."""
        if self._label_info is not None:
            self._label_info.publish(message)

    def destroy(self) -> None:
        """Take the topics off the graph."""
        for publisher in (*self._publishers.values(), self._label_info):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._label_info = None
