"""Points in a band of heights, by the camera's mounting and by TF."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.time import Time

from emu_perception.ros.node import EmuNode

from .conftest import SIZE, Robot, StartNode, wait_for


@pytest.fixture(autouse=True)
def _frequent_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_perception.ros.node.DIAGNOSTICS_PERIOD", 0.1)


class TransformException(Exception):
    """tf2_ros's, which is not among the ROS packages that pip installs."""


class Transforms:
    """Stands in for tf2_ros: one frame, whose transform is known at one stamp and as the newest."""

    def __init__(self) -> None:
        self.z: dict[int, float] = {}
        """Height of the camera by stamp in seconds; 0: the newest."""
        self.listeners = 0
        self.module: Any = ModuleType("tf2_ros")
        self.module.TransformException = TransformException
        self.module.Buffer = lambda: self
        self.module.TransformListener = self.listen

    def listen(self, buffer: Any, node: EmuNode, *, spin_thread: bool) -> Any:
        assert buffer is self and not spin_thread
        self.listeners += 1
        return self

    def unregister(self) -> None:
        self.listeners -= 1

    def lookup_transform(self, target: str, source: str, time: Time) -> Any:
        seconds = time.nanoseconds // 10**9
        if target != "base_link" or seconds not in self.z:
            raise TransformException(f"no {source} at {seconds}")
        # The optical frame of a camera that looks along x.
        rotation = SimpleNamespace(x=-0.5, y=0.5, z=-0.5, w=0.5)
        translation = SimpleNamespace(x=9.0, y=9.0, z=self.z[seconds])
        return SimpleNamespace(
            transform=SimpleNamespace(rotation=rotation, translation=translation)
        )


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> Transforms:
    stand_in = Transforms()
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in.module)
    return stand_in


def cloud(robot: Robot, image: Any) -> np.ndarray:
    """x, y, z of the points, `(H, W, 3)`."""
    message = robot.answer(image, "points")
    return np.frombuffer(message.data, np.float32).reshape(*SIZE, 7)[..., :3]


def begin(robot: Robot) -> None:
    robot.listen("points", "depth/image")
    robot.send(robot.camera_info(), "camera_info")


def test_the_mounting_limits_the_points(start_node: StartNode, robot: Robot) -> None:
    start_node(camera_height=1.0, min_height=0.0, max_height=2)
    begin(robot)
    points = cloud(robot, robot.image())
    height = 1.0 - points[..., 1]
    found = np.isfinite(height)
    assert 0 < found.sum() < found.size
    assert (height[found] >= 0).all() and (height[found] <= 2).all()


def test_heights_in_a_frame_by_tf(
    start_node: StartNode, robot: Robot, transforms: Transforms
) -> None:
    node = start_node(height_frame="base_link", min_height=0.0, max_height=1.0)
    begin(robot)
    image = robot.image()
    transforms.z[image.header.stamp.sec] = 1.0
    transforms.z[0] = 3.0
    for sent, z in ((image, 1.0), (robot.image(), 3.0)):  # the stamp's, else the newest
        points = cloud(robot, sent)
        found = np.isfinite(points[..., 1])
        height = z - points[..., 1][found]
        assert found.any() and height.min() >= -1e-5 and height.max() <= 1 + 1e-5
    assert transforms.listeners == 1
    assert robot.change_state("deactivate") and robot.change_state("cleanup")
    assert transforms.listeners == 0 and node.state == "unconfigured"


def test_without_a_transform_there_are_no_points_but_depth(
    start_node: StartNode, robot: Robot, transforms: Transforms
) -> None:
    start_node(height_frame="base_link", max_height=1.0)
    begin(robot)
    robot.answer(robot.image(), "depth/image")
    robot.wait_for_status(
        lambda _, message, v: "no transform from" in message and "bad input: transform" in v,
        "a report",
    )
    assert not robot.messages["points"]


def test_tf2_ros_is_missing(start_node: StartNode, robot: Robot) -> None:
    node = start_node(height_frame="base_link", autostart=False)
    assert not robot.change_state("configure")
    wait_for(lambda: "needs tf2_ros" in node._failure, "the reason")
    assert "camera_height" in node._failure
