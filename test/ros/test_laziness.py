"""Nothing is computed that nobody asked for; what overtakes what; what diagnostics say of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.parameter import Parameter

from emu_perception.inference.predictor import Predictor
from emu_perception.ros.diagnostics import ERROR, OK, WARN
from emu_perception.ros.node import EmuNode

from .conftest import PATIENCE, SETTLING, Robot, StartNode, wait_for

WATCHED = {"semantic_entropy", "depth_variance"}
NEEDED = {
    "semantic/labels": {"labels"},
    "depth/image": {"depth"},
    "overlay": {"labels"},
    "points": {"labels", "semantic_entropy", "depth", "depth_variance"},
}


class Asked:
    """What the predictor was asked for, call by call; may hold it up."""

    def __init__(self) -> None:
        self.maps: list[Collection[str] | None] = []
        self.may_answer = threading.Event()
        self.may_answer.set()


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Watches the real predictor; set up before any node of the test."""
    monkeypatch.setattr("emu_perception.ros.node.DIAGNOSTICS_PERIOD", 0.1)
    spy, predict = Asked(), Predictor.predict

    def watched(self: Predictor, *arguments: Any, **options: Any) -> Any:
        spy.maps.append(options.get("maps"))
        assert spy.may_answer.wait(PATIENCE)
        return predict(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "predict", watched)
    yield spy
    spy.may_answer.set()


def activate(node: EmuNode, asked: Asked) -> None:
    wait_for(lambda: node.state == "active", "the node to become active")
    asked.maps.clear()  # the first inference, at configure


def subscribed_reliably(robot: Robot) -> None:
    """Wait until the node has adapted to the camera: it subscribes anew for that."""

    def adapted() -> bool:
        found = robot.node.get_subscriptions_info_by_topic("/image")
        return [s.qos_profile.reliability.name for s in found] == ["RELIABLE"]

    wait_for(adapted, "a reliable subscription to the camera")
    time.sleep(SETTLING)


def is_idle(level: int, message: str, values: dict[str, str]) -> bool:
    return level == OK[0] and message.startswith("idle") and values["state"] == "active"


def test_without_subscribers_there_is_no_subscription_and_no_inference(
    start_node: StartNode, robot: Robot, asked: Asked
) -> None:
    camera = robot.camera()
    activate(start_node(), asked)
    robot.wait_for_status(is_idle, "the node to be idle")
    for _ in range(3):
        camera.publish(robot.image())
    _, _, values = robot.wait_for_status(is_idle, "the node to be idle still")
    assert camera.get_subscription_count() == 0
    assert values["received"] == values["answered"] == "0"
    assert asked.maps == []


@pytest.mark.parametrize("topic", ["semantic/labels", "depth/image", "overlay", "points"])
def test_only_what_is_subscribed_to_is_predicted(
    start_node: StartNode, robot: Robot, asked: Asked, topic: str
) -> None:
    activate(start_node(), asked)
    robot.listen(topic)
    robot.send(robot.image())
    wait_for(lambda: asked.maps, "an inference")
    assert set(asked.maps[0] or ()) == NEEDED[topic]


def test_camera_info_needs_no_inference(start_node: StartNode, robot: Robot, asked: Asked) -> None:
    activate(start_node(), asked)
    robot.listen("depth/camera_info")
    robot.send(robot.camera_info(), "camera_info")
    # It travels apart from the image.
    robot.wait_for_status(lambda _, message, __: message != "", "diagnostics")
    robot.answer(robot.image(), "depth/camera_info")
    assert asked.maps == []


def test_a_second_subscriber_widens_and_leaving_ends_it(
    start_node: StartNode, robot: Robot, asked: Asked
) -> None:
    activate(start_node(), asked)
    camera = robot.camera()
    labels = robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    assert set(asked.maps[-1] or ()) == {"labels"}
    depth = robot.listen("depth/image")
    wait_for(lambda: robot.node.count_subscribers("depth/image"), "the second subscriber")
    time.sleep(SETTLING)
    robot.answer(robot.image(), "depth/image")
    assert {"labels", "depth"} <= set(asked.maps[-1] or ())

    robot.unlisten(labels + depth)
    wait_for(lambda: camera.get_subscription_count() == 0, "the node to leave the camera")
    robot.wait_for_status(is_idle, "the node to be idle")
    asked.maps.clear()
    camera.publish(robot.image())
    robot.wait_for_status(is_idle, "the node to be idle")
    assert asked.maps == []


def test_monitor_rate_keeps_watching_the_uncertainties(
    start_node: StartNode, robot: Robot, asked: Asked
) -> None:
    node = start_node(monitor_rate=1000.0)
    activate(node, asked)
    robot.send_image()
    _, message, values = robot.wait_for_status(
        lambda _, __, v: "mean semantic uncertainty" in v, "a mean uncertainty"
    )
    assert message == "running"
    assert 0 < float(values["mean semantic uncertainty"]) <= 1
    assert float(values["mean depth std [m]"]) > 0
    assert [set(maps or ()) for maps in asked.maps] == [WATCHED]
    # Until it is switched off.
    assert set_parameter(node, "monitor_rate", 0.0)
    robot.wait_for_status(is_idle, "the node to be idle")
    assert robot.cameras["image"].get_subscription_count() == 0


def test_alarms_on_the_mean_uncertainties(start_node: StartNode, robot: Robot) -> None:
    node = start_node(
        monitor_rate=1000.0,
        alarm_semantic_uncertainty=0.001,
        alarm_depth_uncertainty=0.001,
        alarm_staleness=0.0,
    )
    robot.send_image()
    _, message, _ = robot.wait_for_status(lambda level, *_: level == WARN[0], "a warning")
    assert "mean semantic uncertainty" in message and "is above 0.001" in message
    assert "mean depth std" in message and "is above 0.001 m" in message
    assert set_parameter(node, "alarm_semantic_uncertainty", 1.0)
    assert set_parameter(node, "alarm_depth_uncertainty", 0.0)

    def shown() -> bool:
        robot.send_image()
        time.sleep(0.1)
        latest = robot.latest()
        return (
            latest is not None and latest[0] == OK[0] and "mean semantic uncertainty" in latest[2]
        )

    wait_for(shown, "no warning beside the same uncertainty")


def test_a_camera_that_falls_silent_is_an_error(start_node: StartNode, robot: Robot) -> None:
    node = start_node(alarm_staleness=0.3)
    robot.listen("semantic/labels")
    _, message, _ = robot.wait_for_status(
        lambda level, *_: level == ERROR[0], "an error for want of a first image"
    )
    assert message.startswith("no image on /image for")

    def recovered() -> bool:
        robot.send_image()
        latest = robot.latest()
        return latest is not None and latest[0] == OK[0] and latest[2]["answered"] != "0"

    wait_for(recovered, "the end of the alarm")
    robot.wait_for_status(lambda level, *_: level == ERROR[0], "an error for a silent camera")
    assert set_parameter(node, "alarm_staleness", 0.0)
    robot.wait_for_status(lambda level, *_: level == OK[0], "silence without an alarm")


def test_min_confidence_changes_while_running(start_node: StartNode, robot: Robot) -> None:
    node = start_node()
    robot.listen("semantic/labels")
    before = np.array(robot.answer(robot.image(), "semantic/labels").data)
    assert (before < 11).all()
    assert set_parameter(node, "min_confidence", 1.0)
    dropped = np.array(robot.answer(robot.image(), "semantic/labels").data)
    assert (dropped == 255).all()
    assert set_parameter(node, "min_confidence", 0.0)
    again = np.array(robot.answer(robot.image(), "semantic/labels").data)
    assert np.array_equal(again, before)


def test_max_depth_std_changes_while_running(start_node: StartNode, robot: Robot) -> None:
    node = start_node()
    robot.listen("depth/image")
    before = np.frombuffer(robot.answer(robot.image(), "depth/image").data, np.float32)
    assert np.isfinite(before).any()
    assert set_parameter(node, "max_depth_std", 1e-6)
    dropped = np.frombuffer(robot.answer(robot.image(), "depth/image").data, np.float32)
    assert np.isnan(dropped).all()
    # The alarm hears of it all the same.
    assert set_parameter(node, "alarm_depth_uncertainty", 1e-6)
    robot.wait_for_status(
        lambda level, message, _: level == WARN[0] and "mean depth std" in message,
        "an alarm about depth that is taken out",
    )


def test_stamps_that_jump_back_are_survived(start_node: StartNode, robot: Robot) -> None:
    start_node()
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    early = robot.image()
    early.header.stamp.sec = 5
    assert robot.answer(early, "semantic/labels").header.stamp.sec == 5
    robot.answer(robot.image(), "semantic/labels")
    _, _, values = robot.wait_for_status(
        lambda _, __, v: v["answered"] == "3", "three answered images"
    )
    assert values["jumps back in time"] == "1"


def test_the_newest_frame_wins_and_the_dropped_are_counted(
    start_node: StartNode, robot: Robot, asked: Asked
) -> None:
    activate(start_node(), asked)
    robot.camera()
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    subscribed_reliably(robot)
    robot.answer(robot.image(), "semantic/labels")
    robot.messages["semantic/labels"].clear()
    asked.maps.clear()
    _, _, before = robot.wait_for_status(lambda *_: True, "diagnostics")

    asked.may_answer.clear()
    first = robot.send_image()
    wait_for(lambda: asked.maps, "the first inference to begin")
    later = [robot.send_image() for _ in range(4)]

    def increase(values: dict[str, str], key: str) -> int:
        return int(values[key]) - int(before[key])

    robot.wait_for_status(
        lambda _, __, v: increase(v, "received") + increase(v, "dropped before the node") == 5,
        "all five images at the node",
    )
    asked.may_answer.set()
    robot.wait_for_answer(later[-1], "semantic/labels")
    stamps = [message.header.stamp for message in robot.messages["semantic/labels"]]
    assert stamps == [first.header.stamp, later[-1].header.stamp]
    _, _, values = robot.wait_for_status(
        lambda _, __, v: increase(v, "answered") == 2, "two answered images"
    )
    assert increase(values, "dropped") == 3


def set_parameter(node: EmuNode, name: str, value: Any) -> bool:
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result.successful
