"""A real rclpy with Fast DDS: a small model, the node in a thread, a robot that talks to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emu_perception.inference.model_spec import Camera
from emu_perception.processes import claim_domain
from emu_perception.resources import find_resource

# Before rclpy's first context: on this machine only, where no other test run listens, and with
# the transports that the package ships.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
_claim = claim_domain()
os.environ["ROS_DOMAIN_ID"] = str(_claim.__enter__())  # until this process ends
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(find_resource("config", "node", "fastdds.xml"))

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from emu_perception.messages.compressed import COMPRESSED_OUTPUTS  # noqa: E402
from emu_perception.messages.create import image_message  # noqa: E402
from emu_perception.ros.executor import NodeExecutor  # noqa: E402
from emu_perception.ros.node import EmuNode  # noqa: E402

PATIENCE = 40.0
"""Seconds after which something that should happen is taken not to."""
SETTLING = 0.5
SIZE = (48, 64)
FRAME = "camera_optical_frame"
TYPES = {
    "points": PointCloud2,
    "depth/camera_info": CameraInfo,
    **dict.fromkeys(COMPRESSED_OUTPUTS, CompressedImage),
}
STATES = {
    "unconfigured": State.PRIMARY_STATE_UNCONFIGURED,
    "inactive": State.PRIMARY_STATE_INACTIVE,
    "active": State.PRIMARY_STATE_ACTIVE,
    "finalized": State.PRIMARY_STATE_FINALIZED,
}


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until a condition is true and return its value; fail with `what` otherwise."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"waited {patience:.0f} s in vain for {what}")


class Spinning:
    """An executor that spins in a thread of its own."""

    def __init__(self, executor: Any, name: str) -> None:
        self.executor = executor
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self.executor.spin_once(timeout_sec=0.2)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.executor.shutdown()


class Robot:
    """A camera, and everybody who may listen to the node."""

    def __init__(self, namespace: str = "") -> None:
        self.node = rclpy.create_node("robot", namespace=namespace)
        self.messages: dict[str, list[Any]] = {}
        self.diagnostics: list[DiagnosticStatus] = []
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10
        )
        self.cameras: dict[str, Any] = {}
        self._heard: set[str] = set()
        self._spinning = Spinning(SingleThreadedExecutor(), "robot")
        self._spinning.executor.add_node(self.node)
        self._seconds = 1000

    def close(self) -> None:
        self._spinning.stop()
        self.node.destroy_node()

    # Camera

    def camera(
        self, topic: str = "image", reliability: str = "RELIABLE", kind: type = Image
    ) -> Any:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
        self.cameras[topic] = self.node.create_publisher(kind, topic, qos)
        return self.cameras[topic]

    def header(self, frame: str = FRAME) -> Header:
        self._seconds += 1
        header = Header(frame_id=frame)
        header.stamp.sec = self._seconds
        return header

    def send(self, message: Any, topic: str = "image") -> Any:
        """Publish once somebody listens."""
        publisher = self.cameras.get(topic) or self.camera(topic, kind=type(message))
        wait_for(publisher.get_subscription_count, f"a subscription to {topic}")
        if topic not in self._heard:
            # One side knows of a match before the other can receive.
            time.sleep(SETTLING)
            self._heard.add(topic)
        publisher.publish(message)
        return message

    def image(self, size: tuple[int, int] = SIZE, seed: int = 0) -> Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        return image_message(self.header(), "rgb8", pixels)

    def send_image(self, size: tuple[int, int] = SIZE) -> Image:
        return self.send(self.image(size))

    def compressed(self, data: bytes, kind: str = "jpeg") -> CompressedImage:
        message = CompressedImage(header=self.header(), format=kind)
        message.data.frombytes(data)
        return message

    def camera_info(self, size: tuple[int, int] = SIZE, focal: float = 60.0) -> CameraInfo:
        height, width = size
        info = CameraInfo(header=self.header(), height=height, width=width)
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        info.k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
        info.p = [*info.k[:3], 0.0, *info.k[3:6], 0.0, *info.k[6:], 0.0]
        return info

    # Listeners

    def listen(self, *topics: str, reliability: str = "RELIABLE") -> list[Any]:
        """Subscribe; what comes is in `messages[topic]`."""
        return [self._listen(topic, reliability) for topic in topics]

    def _listen(self, topic: str, reliability: str) -> Any:
        received = self.messages.setdefault(topic, [])
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
        kind = TYPES.get(topic.removeprefix("/"), Image)
        return self.node.create_subscription(kind, topic, received.append, qos)

    def unlisten(self, subscriptions: list[Any]) -> None:
        for subscription in subscriptions:
            self.node.destroy_subscription(subscription)

    def answer(self, message: Any, topic: str, source: str = "image") -> Any:
        """Send an image and return what comes on an output for it."""
        self.send(message, source)
        return self.wait_for_answer(message, topic)

    def wait_for_answer(self, message: Any, topic: str) -> Any:
        stamp = message.header.stamp
        found = wait_for(
            lambda: [m for m in self.messages[topic] if m.header.stamp == stamp],
            f"an answer on {topic} to {stamp.sec}; diagnostics: {self.latest()}",
        )
        return found[0]

    # Diagnostics

    def latest(self) -> tuple[int, str, dict[str, str]] | None:
        """Level, message and values of the newest status."""
        if not self.diagnostics:
            return None
        status = self.diagnostics[-1]
        return status.level[0], status.message, {v.key: v.value for v in status.values}

    def wait_for_status(
        self, condition: Callable[[int, str, dict[str, str]], Any], what: str
    ) -> tuple[int, str, dict[str, str]]:
        self.diagnostics.clear()
        return wait_for(
            lambda: next(
                (
                    found
                    for status in list(self.diagnostics)
                    if condition(*(found := (status.level[0], status.message, _values(status))))
                ),
                None,
            ),
            what,
        )

    # Lifecycle services

    def call(self, kind: Any, service: str, request: Any, patience: float = PATIENCE) -> Any:
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(patience), service
        future = client.call_async(request)
        wait_for(future.done, f"an answer of {service}", patience)
        self.node.destroy_client(client)
        return future.result()

    def state(self, name: str = "emu_perception") -> str:
        return self.call(GetState, f"{name}/get_state", GetState.Request()).current_state.label

    def change_state(self, transition: str, name: str = "emu_perception") -> bool:
        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, f"{name}/change_state", request).success


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {v.key: v.value for v in status.values}


@pytest.fixture(scope="session")
def model_path(write_model: Callable[..., Path]) -> Path:
    """A real model file, predicting about 10 m."""
    torch.set_num_threads(1)
    return write_model(camera=Camera(canonical_focal_length=60.0, assumed_focal_ratio=0.9))


@pytest.fixture(scope="session", autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


StartNode = Callable[..., EmuNode]


@pytest.fixture
def start_node(model_path: Path) -> Iterator[StartNode]:
    """Starts nodes with parameters as keywords; they are stopped after the test."""
    running: list[tuple[EmuNode, Spinning]] = []

    def start(namespace: str = "", cli_args: list[str] | None = None, **parameters: Any) -> EmuNode:
        values = {"model": str(model_path), "device": "cpu", "engine": "pytorch"} | parameters
        node = EmuNode(
            namespace=namespace,
            cli_args=cli_args,
            parameter_overrides=[Parameter(n, value=v) for n, v in values.items()],
        )
        spinning = Spinning(NodeExecutor(), "node")
        spinning.executor.add_node(node)
        running.append((node, spinning))
        return node

    yield start
    for node, spinning in running:
        spinning.stop()
        node.destroy_node()


@pytest.fixture
def active_node(start_node: StartNode, robot: Robot) -> EmuNode:
    """A node with default parameters, active."""
    node = start_node()
    wait_for(lambda: node.state == "active", "the node to become active")
    return node
