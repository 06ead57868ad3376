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
from sensor_msgs.msg import CompressedImage, Image

from emu_perception.messages.errors import BadInput
from emu_perception.messages.images import map_values
from emu_perception.processes import claim_domain
from emu_perception.resources import find_resource
from emu_perception.ros.executor import NodeExecutor
from emu_perception.ros.node import EmuNode

PATIENCE = 20.0
"""Seconds on a wall clock for a message to be answered or counted."""
_TOPIC = "semantic/labels"
_NOT_OF_IMAGES = {BadInput.SIZE_CHANGE.value, BadInput.CAMERA_INFO.value}


class CountedError(ValueError):
    """The node counted the message as bad input; the text is what it reported."""


class NodeUnderTest:
    """A context manager.

    Args:
        model: file of the node's model.
        transport: `raw` or `compressed`.
        max_pixels: the node's parameter `max_image_pixels`.

    Raises:
        RuntimeError: the node does not become active.
    """

    def __init__(self, model: Path, transport: str, max_pixels: int) -> None:
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
        self._robot.create_subscription(Image, _TOPIC, self._receive, 10)
        kind, topic = (
            (CompressedImage, "image/compressed") if self._compressed else (Image, "image")
        )
        self._camera = self._robot.create_publisher(kind, topic, QoSProfile(depth=5))
        self._spin(SingleThreadedExecutor(), self._robot)
        self._number = 0
        self._reasons: dict[str, str] = {}
        if not self._wait(
            lambda: self._node.state == "active" and self._camera.get_subscription_count()
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
        self._number += 1
        message: Any
        if self._compressed:
            message = CompressedImage(format=fields.format)
        else:
            names = ("height", "width", "encoding", "is_bigendian", "step")
            message = Image(**{name: getattr(fields, name) for name in names})
        message.data.frombytes(fields.data)
        message.header.stamp.sec = self._number
        before = self._bad()
        self._reasons.clear()
        self._camera.publish(message)
        if not self._wait(lambda: self._number in self._answers or self._bad() > before):
            raise RuntimeError(f"message {self._number} was neither answered nor counted")
        if BadInput.INFERENCE.value in self._reasons:
            raise RuntimeError(self._reasons[BadInput.INFERENCE.value])
        answer = self._answers.pop(self._number, None)
        if answer is None:
            raise CountedError(next(iter(self._reasons.values()), "bad input"))
        return map_values(answer)

    def _bad(self) -> int:
        found = self._node.statistics.snapshot()
        self._reasons |= found.recent_bad
        return sum(number for kind, number in found.bad.items() if kind not in _NOT_OF_IMAGES)

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
