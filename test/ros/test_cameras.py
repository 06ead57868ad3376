"""The first camera_info, losses on the way, and several cameras through one model."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from emu_perception.inference.predictor import Predictor
from emu_perception.messages.errors import BadInput
from emu_perception.ros.diagnostics import WARN, NodeState, diagnose
from emu_perception.ros.image_input import CAMERA_INFO_SECONDS, DISCOVERY_SECONDS
from emu_perception.ros.parameters import ParameterError
from emu_perception.ros.settings import Settings
from emu_perception.ros.statistics import Statistics

from .conftest import Robot, StartNode, wait_for


@pytest.fixture(autouse=True)
def _frequent_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_perception.ros.node.DIAGNOSTICS_PERIOD", 0.1)


@pytest.fixture
def focal_lengths(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The focal length that each prediction was made with; None: an assumed one."""
    seen: list[float | None] = []
    predict = Predictor.predict

    def watched(self: Predictor, image: Any, intrinsics: Any = None, **options: Any) -> Any:
        seen.append(intrinsics.fx if intrinsics is not None else None)
        return predict(self, image, intrinsics, **options)

    monkeypatch.setattr(Predictor, "predict", watched)
    return seen


def camera_info_publisher(robot: Robot, topic: str = "camera_info") -> Any:
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    return robot.node.create_publisher(CameraInfo, topic, qos)


@pytest.mark.moments("late", [0.0, 0.1, 0.3])
def test_images_wait_for_a_camera_info_that_is_late(
    start_node: StartNode, robot: Robot, focal_lengths: list[float | None], late: float
) -> None:
    """The camera and its camera_info begin with the node; camera_info comes later."""
    images = robot.camera()
    infos = camera_info_publisher(robot)
    node = start_node()
    wait_for(lambda: node.state == "active", "the node to become active")
    robot.listen("depth/image")
    focal_lengths.clear()  # the warm-up's
    wait_for(images.get_subscription_count, "a subscription to the camera")
    begin = time.monotonic()
    while not robot.messages["depth/image"]:
        image = robot.image()
        images.publish(image)
        if time.monotonic() - begin >= late:
            info = robot.camera_info(focal=33.0)
            info.header = image.header
            infos.publish(info)
        time.sleep(0.03)
        assert time.monotonic() - begin < 20
    assert focal_lengths and set(focal_lengths) == {33.0}


def test_a_silent_camera_info_holds_images_for_a_second_and_is_reported(
    start_node: StartNode, robot: Robot, focal_lengths: list[float | None]
) -> None:
    camera_info_publisher(robot)
    node = start_node()
    wait_for(lambda: node.state == "active", "the node to become active")
    focal_lengths.clear()
    robot.listen("depth/image")
    image = robot.image()
    begin = time.monotonic()
    robot.answer(image, "depth/image")
    assert time.monotonic() - begin > CAMERA_INFO_SECONDS - DISCOVERY_SECONDS
    assert focal_lengths == [None]
    robot.wait_for_status(
        lambda level, _, v: v.get(f"bad input: {BadInput.CAMERA_INFO.value}") == "1", "a report"
    )
    # From then on images go through at once, until a camera_info comes.
    robot.answer(robot.image(), "depth/image")


def test_an_image_goes_with_the_camera_info_of_its_stamp(
    start_node: StartNode, robot: Robot, focal_lengths: list[float | None]
) -> None:
    node = start_node()
    wait_for(lambda: node.state == "active", "the node to become active")
    robot.listen("depth/image")
    images = [robot.image() for _ in range(3)]
    infos = []
    for image, focal in zip(images, (40.0, 50.0), strict=False):
        info = robot.camera_info(focal=focal)
        info.header = image.header
        infos.append(info)
    robot.answer(robot.image(), "depth/image")  # both sides know of each other
    for info in infos:
        robot.send(info, "camera_info")
    source: Any = node._streams[0].source
    wait_for(lambda: len(source._infos) == 2, "both camera_infos")
    focal_lengths.clear()
    for image in images:
        robot.answer(image, "depth/image")
    # The last has none of its own: the newest.
    assert focal_lengths == [40.0, 50.0, 50.0]


# Losses


@pytest.mark.parametrize(("lost", "warns"), [(2, False), (5, True), (300, True)])
def test_losses_above_a_fifth_name_the_profile(lost: int, warns: bool) -> None:
    statistics = Statistics()
    statistics.listening(True)
    for index in range(10):
        statistics.received(lost if index == 5 else 0)
    state = NodeState(name="/node", lifecycle="active", input_topic="/image")
    status = diagnose(state, statistics.snapshot(), Settings())
    assert (status.level == WARN) is warns
    assert ("FASTDDS_DEFAULT_PROFILES_FILE" in status.message) is warns
    if warns:
        assert "% of the images on /image are lost" in status.message


def test_a_camera_of_which_nothing_arrives_names_the_profile(
    start_node: StartNode, robot: Robot
) -> None:
    robot.camera()
    start_node(alarm_staleness=0.3)
    robot.listen("semantic/labels")
    assert robot.wait_for_status(
        lambda _, message, __: (
            message.startswith("no image on /image") and "FASTDDS_DEFAULT_PROFILES_FILE" in message
        ),
        "a hint",
    )


# Several cameras


NAMES = ("front", "left", "rig/rear")


def test_several_cameras_share_one_model(
    start_node: StartNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []
    load = Predictor.from_pretrained

    def count(*arguments: Any, **options: Any) -> Predictor:
        loads.append(arguments)
        return load(*arguments, **options)

    monkeypatch.setattr(Predictor, "from_pretrained", staticmethod(count))
    node = start_node(cameras=list(NAMES))
    wait_for(lambda: node.state == "active", "the node to become active")
    assert len(loads) == 1
    depth: dict[str, np.ndarray] = {}
    for number, name in enumerate(NAMES):
        robot.listen(f"{name}/depth/image")
        info = robot.camera_info(focal=30.0 * (number + 1))
        robot.send(info, f"{name}/camera_info")
        image = robot.image()
        image.header.frame_id = info.header.frame_id
        answer = robot.answer(image, f"{name}/depth/image", source=f"{name}/image")
        assert answer.header == image.header
        depth[name] = np.frombuffer(answer.data, np.float32)
    # Each in the scale of its own camera.
    assert np.allclose(depth["left"], 2 * depth["front"], rtol=1e-4, equal_nan=True)
    assert np.allclose(depth["rig/rear"], 3 * depth["front"], rtol=1e-4, equal_nan=True)
    assert {len(robot.messages[f"{n}/depth/image"]) for n in NAMES} == {1}

    def values() -> dict[str, dict[str, str]]:
        return {s.name: {v.key: v.value for v in s.values} for s in list(robot.diagnostics)}

    names = {f"/emu_perception: {name}" for name in NAMES} | {"/emu_perception"}
    wait_for(lambda: names <= values().keys(), "a status of each camera")
    for name in NAMES:
        wait_for(
            lambda name=name: values()[f"/emu_perception: {name}"]["answered"] == "1",
            f"the count of {name}",
        )


def test_only_cameras_with_subscribers_are_subscribed_to(
    start_node: StartNode, robot: Robot
) -> None:
    node = start_node(cameras=["front", "left"])
    wait_for(lambda: node.state == "active", "the node to become active")
    cameras = {name: robot.camera(f"{name}/image") for name in ("front", "left")}
    robot.listen("left/semantic/labels")
    wait_for(cameras["left"].get_subscription_count, "a subscription to the left camera")
    assert cameras["front"].get_subscription_count() == 0


def test_no_camera_starves(
    start_node: StartNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Predictor.predict

    def slowly(self: Predictor, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return predict(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "predict", slowly)
    names = ("front", "left", "right", "rear")
    node = start_node(cameras=list(names))
    wait_for(lambda: node.state == "active", "the node to become active")
    publishers = {name: robot.camera(f"{name}/image") for name in names}
    for name in names:
        robot.listen(f"{name}/semantic/labels")
    for publisher in publishers.values():
        wait_for(publisher.get_subscription_count, "all subscriptions")
    done = threading.Event()

    def send(name: str, period: float) -> None:
        message: Image = robot.image()
        while not done.wait(period):
            publishers[name].publish(message)

    # The front camera is faster than the others; each is faster than its turn.
    threads = [
        threading.Thread(target=send, args=(name, 0.02 if name == "front" else 0.08))
        for name in names
    ]
    for thread in threads:
        thread.start()

    def counts() -> list[int]:
        return [stream.statistics.snapshot().answered for stream in node._streams]

    wait_for(lambda: min(counts()) > 3, "all cameras")
    before = counts()
    wait_for(lambda: sum(counts()) - sum(before) >= 60, "sixty answers", 120)
    answered = np.subtract(counts(), before)
    done.set()
    for thread in threads:
        thread.join()
    assert max(answered) <= 1.1 * min(answered) + 1


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        (["front", "front"], "names a camera twice"),
        (["front camera"], "'front camera', expected a ROS namespace"),
        (["front", ""], "expected a ROS namespace"),
        ("front", "must be a list of strings"),
    ],
)
def test_bad_camera_names(start_node: StartNode, cameras: Any, words: str) -> None:
    with pytest.raises(ParameterError, match="cameras") as raised:
        start_node(cameras=cameras, autostart=False)
    assert words in str(raised.value)


def test_an_empty_list_is_one_camera(start_node: StartNode, model_path: Path) -> None:
    node = start_node(cameras=[""], autostart=False)
    assert node._settings.camera_names == ("",)
