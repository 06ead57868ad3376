"""A node and a camera in one process: each message is answered, or counted as bad input."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from emu_perception.messages.errors import BadInput
from emu_perception.messages.images import map_values
from emu_perception.processes import claim_domain
from emu_perception.resources import find_resource
from emu_perception.ros.executor import NodeExecutor
from emu_perception.ros.node import EmuNode
from emu_perception.ros.statistics import Snapshot

PATIENCE = 20.0
"""Seconds on a wall clock for a message to be answered or counted."""
_LABELS, _DEPTH, _POINTS, _CAMERA_INFO = "semantic/labels", "depth/image", "points", "camera_info"
_IMAGE_FIELDS = ("height", "width", "encoding", "is_bigendian", "step")
_CAMERA_FIELDS = (
    *("height", "width", "distortion_model", "d", "k", "r", "p"),
    *("binning_x", "binning_y"),
)
_NOT_OF_IMAGES = {BadInput.SIZE_CHANGE.value, BadInput.CAMERA_INFO.value}


class CountedError(ValueError):
    """The node counted the message as bad input; the text is what it reported."""


def _refused(found: Snapshot) -> int:
    """Images that were counted as bad input."""
    return sum(number for kind, number in found.bad.items() if kind not in _NOT_OF_IMAGES)


class NodeUnderTest:
    """A context manager.

    Args:
        model: file of the node's model.
        transport: `raw` or `compressed`.
        max_pixels: the node's parameter `max_image_pixels`.
        camera_info: whether `send_with_camera` will be called: depth and points are subscribed to.

    Raises:
        RuntimeError: the node does not become active.
    """

    def __init__(
        self, model: Path, transport: str, max_pixels: int, *, camera_info: bool = False
    ) -> None:
        self._stack = ExitStack()
        self._compressed = transport == "compressed"
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(
            find_resource("config", "node", "fastdds.xml")
        )
        domain = self._stack.enter_context(claim_domain())
        rclpy.init(domain_id=domain)
        self._stack.callback(rclpy.try_shutdown)
        values = {
            "model": str(model),
            "device": "cpu",
            "engine": "pytorch",
            "image_transport": transport,
            "max_image_pixels": max_pixels,
        }
        self._node = EmuNode(
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self._stack.callback(self._node.destroy_node)
        self._spin(NodeExecutor(), self._node)
        self._robot = rclpy.create_node("fuzzing_camera")
        self._stack.callback(self._robot.destroy_node)
        self._answers: dict[int, Image] = {}
        answer = _DEPTH if camera_info else _LABELS
        self._robot.create_subscription(Image, answer, self._receive, 10)
        if camera_info:
            self._robot.create_subscription(PointCloud2, _POINTS, lambda message: None, 10)
            self._camera_info = self._robot.create_publisher(CameraInfo, _CAMERA_INFO, 10)
        kind, topic = (
            (CompressedImage, "image/compressed") if self._compressed else (Image, "image")
        )
        self._camera = self._robot.create_publisher(kind, topic, QoSProfile(depth=5))
        self._spin(SingleThreadedExecutor(), self._robot)
        self._number = 0
        self._reasons: dict[str, str] = {}
        publishers = [self._camera, *([self._camera_info] if camera_info else [])]
        if not self._wait(
            lambda: (
                self._node.state == "active"
                and all(publisher.get_subscription_count() for publisher in publishers)
            )
        ):
            self.close()
            raise RuntimeError(
                f"the node is {self._node.state}, expected it to listen to its camera"
            )
        time.sleep(0.5)  # one side knows of a match before the other can receive

    def __enter__(self) -> NodeUnderTest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End both nodes."""
        self._stack.close()

    def send(self, fields: SimpleNamespace) -> np.ndarray:
        """The labels that the node publishes for a message with these fields.

        Raises:
            CountedError: the node counted it as bad input.
            RuntimeError: it did neither.
        """
        message: Any
        if self._compressed:
            message = CompressedImage(format=fields.format)
        else:
            message = Image(**{name: getattr(fields, name) for name in _IMAGE_FIELDS})
        message.data.frombytes(fields.data)
        self._number += 1
        return self._answer(message)

    def send_with_camera(
        self, camera: SimpleNamespace, fields: SimpleNamespace, frame: str
    ) -> tuple[np.ndarray, str | None]:
        """The depth that the node publishes for an Image after a CameraInfo of the same stamp, and
        what it reports about that CameraInfo; None: nothing.

        Args:
            camera: fields of the CameraInfo.
            fields: of the Image.
            frame: frame_id of the Image.

        Raises:
            CountedError, RuntimeError: as `send`.
        """
        info = CameraInfo(**{name: getattr(camera, name) for name in _CAMERA_FIELDS})
        info.header.frame_id = camera.header.frame_id
        for name in ("x_offset", "y_offset", "height", "width"):
            setattr(info.roi, name, getattr(camera.roi, name))
        self._number += 1
        info.header.stamp.sec = self._number
        source = self._node._streams[0].source
        self._camera_info.publish(info)

        def has_come() -> bool:
            newest = source.camera_info(info.header.stamp)
            return newest is not None and newest.header.stamp.sec == self._number

        if not self._wait(has_come):
            raise RuntimeError(f"camera_info {self._number} did not reach the node")
        image = Image(**{name: getattr(fields, name) for name in _IMAGE_FIELDS})
        image.data.frombytes(fields.data)
        image.header.frame_id = frame
        before = self._look()
        depth = self._answer(image)
        # The points come last.
        if not self._wait(lambda: self._look().answered > before.answered):
            raise RuntimeError(f"message {self._number} was answered in part: {self._reasons}")
        self._raise_failed(before)
        refused = BadInput.CAMERA_INFO.value
        if self._look().bad.get(refused, 0) == before.bad.get(refused, 0):
            return depth, None
        return depth, self._reasons.get(refused, refused)

    def _answer(self, message: Any) -> np.ndarray:
        message.header.stamp.sec = self._number
        before = self._look()
        self._reasons.clear()
        self._camera.publish(message)
        if not self._wait(
            lambda: self._number in self._answers or _refused(self._look()) > _refused(before)
        ):
            raise RuntimeError(f"message {self._number} was neither answered nor counted")
        self._raise_failed(before)
        answer = self._answers.pop(self._number, None)
        if answer is None:
            raise CountedError(next(iter(self._reasons.values()), "bad input"))
        return map_values(answer)

    def _raise_failed(self, before: Snapshot) -> None:
        """Raise if the node failed on a message instead of refusing it."""
        failed = BadInput.INFERENCE.value
        if self._look().bad.get(failed, 0) > before.bad.get(failed, 0):
            raise RuntimeError(self._reasons.get(failed, "the node failed on the message"))

    def _look(self) -> Snapshot:
        found = self._node.statistics.snapshot()
        self._reasons |= found.recent_bad
        return found

    def _receive(self, message: Image) -> None:
        self._answers[message.header.stamp.sec] = message

    def _wait(self, condition: Any) -> bool:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.0005)
        return False

    def _spin(self, executor: Any, node: Any) -> None:
        executor.add_node(node)
        stopping = threading.Event()

        def run() -> None:
            while not stopping.is_set():
                executor.spin_once(timeout_sec=0.1)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def stop() -> None:
            stopping.set()
            thread.join(PATIENCE)
            executor.shutdown()

        self._stack.callback(stop)
