"""The lifecycle through its services: transitions, failures that leave the node up, topics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log
from rclpy.parameter import Parameter

from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.messages.errors import BadInput
from emu_perception.messages.topics import IMAGE_OUTPUTS
from emu_perception.ros.diagnostics import ERROR, OK

from .conftest import PATIENCE, SETTLING, Robot, StartNode, wait_for

OUTPUTS = [
    *(topic for topic in IMAGE_OUTPUTS if "epistemic" not in topic),
    "points",
    "depth/camera_info",
]


@pytest.fixture(autouse=True)
def _frequent_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_perception.ros.node.DIAGNOSTICS_PERIOD", 0.1)


def wait_for_publishers(robot: Robot, number: int) -> None:
    def counts() -> bool:
        return all(robot.node.count_publishers(f"/{topic}") == number for topic in OUTPUTS)

    wait_for(counts, f"{number} publishers of every output")


def test_through_all_states_and_back_twice(start_node: StartNode, robot: Robot) -> None:
    start_node(autostart=False)
    robot.camera()
    for _ in range(2):
        assert robot.state() == "unconfigured"
        wait_for_publishers(robot, 0)
        assert robot.change_state("configure")
        assert robot.state() == "inactive"
        wait_for_publishers(robot, 1)
        assert robot.change_state("activate")
        assert robot.state() == "active"
        assert robot.change_state("deactivate")
        assert robot.state() == "inactive"
        assert robot.change_state("cleanup")
        robot.wait_for_status(lambda _, __, v: v["state"] == "unconfigured", "cleaned up")
    assert robot.state() == "unconfigured"
    wait_for_publishers(robot, 0)


def test_configuring_logs_the_terms_of_the_model(
    start_node: StartNode, robot: Robot, write_model: Callable[..., Path]
) -> None:
    lines: list[str] = []
    robot.node.create_subscription(Log, "/rosout", lambda line: lines.append(line.msg), 50)
    start_node(model=str(write_model(license="CC BY-NC 4.0", data="streets of one town")))
    expected = "licence of the model: CC BY-NC 4.0; trained on: streets of one town"
    assert wait_for(lambda: expected in lines, "the licence in the log")


def test_an_impossible_transition_is_refused(start_node: StartNode, robot: Robot) -> None:
    start_node(autostart=False)
    assert not robot.change_state("activate")
    assert robot.state() == "unconfigured"
    assert robot.change_state("configure")
    assert robot.state() == "inactive"


def test_answers_only_while_active(start_node: StartNode, robot: Robot) -> None:
    start_node(autostart=False)
    camera = robot.camera()
    robot.listen("semantic/labels")
    assert robot.change_state("configure")
    robot.wait_for_status(lambda _, __, v: v["state"] == "inactive", "inactive")
    assert camera.get_subscription_count() == 0
    unanswered = [robot.image()]
    camera.publish(unanswered[0])

    assert robot.change_state("activate")
    robot.answer(robot.image(), "semantic/labels")
    assert robot.change_state("deactivate")
    wait_for(lambda: camera.get_subscription_count() == 0, "the end of the subscription")
    unanswered.append(robot.image())
    camera.publish(unanswered[1])
    assert robot.change_state("activate")
    robot._heard.clear()  # a new subscription
    robot.answer(robot.image(), "semantic/labels")

    stamps = [message.header.stamp for message in robot.messages["semantic/labels"]]
    assert len(stamps) == 2
    assert not any(image.header.stamp in stamps for image in unanswered)


def test_cleanup_while_subscribed_takes_the_outputs_away(
    start_node: StartNode, robot: Robot
) -> None:
    node = start_node()
    robot.listen("semantic/labels", "depth/image")
    robot.answer(robot.image(), "depth/image")
    assert robot.change_state("deactivate")
    assert robot.change_state("cleanup")
    wait_for_publishers(robot, 0)
    # The name of the model no longer stands in the diagnostics, and it may change now.
    robot.wait_for_status(
        lambda _, message, v: v["model"] == "" and message == "unconfigured", "no model"
    )
    assert robot.change_state("configure")
    assert robot.change_state("activate")
    robot._heard.clear()
    robot.answer(robot.image(), "depth/image")
    assert node.state == "active"


def test_the_state_can_be_asked_for_while_the_model_loads(
    start_node: StartNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Predictor.from_pretrained
    loading, go_on = threading.Event(), threading.Event()

    def load_slowly(*arguments: Any, **options: Any) -> Predictor:
        loading.set()
        assert go_on.wait(PATIENCE)
        return load(*arguments, **options)

    monkeypatch.setattr(Predictor, "from_pretrained", staticmethod(load_slowly))
    start_node(autostart=False)
    client = robot.node.create_client(ChangeState, "emu_perception/change_state")
    assert client.wait_for_service(PATIENCE)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    # Asking once has both sides know of each other.
    assert robot.state() == "unconfigured"
    future = client.call_async(request)
    try:
        wait_for(loading.is_set, "configure to begin")
        assert robot.state() == "configuring"
        robot.wait_for_status(lambda *_: True, "diagnostics during configure")
        assert not future.done()
    finally:
        go_on.set()
    wait_for(future.done, "the end of configure")
    assert future.result().success
    assert robot.state() == "inactive"


@pytest.fixture(params=["missing", "truncated", "no model at all"])
def bad_model(request: pytest.FixtureRequest, model_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bad.safetensors"
    if request.param == "truncated":
        content = model_path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif request.param == "no model at all":
        path.write_text("not a model")
    return path


def test_a_bad_model_file_fails_configure_and_nothing_else(
    start_node: StartNode, robot: Robot, bad_model: Path, model_path: Path
) -> None:
    node = start_node(autostart=False, model=str(bad_model))
    assert not robot.change_state("configure")
    assert robot.state() == "unconfigured"
    wait_for_publishers(robot, 0)
    _, message, values = robot.wait_for_status(
        lambda level, *_: level == ERROR[0], "an error in diagnostics"
    )
    assert "configure failed" in message and str(bad_model) in message
    assert values["bad input: model file"] == "1"

    assert not robot.change_state("configure")
    robot.wait_for_status(lambda _, __, v: v["bad input: model file"] == "2", "a second failure")
    (result,) = node.set_parameters([_model(model_path)])
    assert result.successful, result.reason
    assert robot.change_state("configure")
    assert robot.change_state("activate")
    _, message, values = robot.wait_for_status(lambda level, *_: level == OK[0], "no error")
    assert values["state"] == "active" and values["model"] == model_path.name
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")


def test_autostart_with_a_missing_model_leaves_the_node_up(
    start_node: StartNode, robot: Robot, tmp_path: Path
) -> None:
    start_node(model=str(tmp_path / "missing.safetensors"))
    _, message, _ = robot.wait_for_status(
        lambda level, *_: level == ERROR[0], "the reason in diagnostics"
    )
    assert "no model file" in message and "missing.safetensors" in message
    # It may be told a moment before the transition has ended.
    wait_for(lambda: robot.state() not in ("configuring", "errorprocessing"), "its end")
    assert robot.state() == "unconfigured"


def test_an_unknown_device_fails_configure_as_a_parameter(
    start_node: StartNode, robot: Robot
) -> None:
    start_node(autostart=False, device="abacus")
    assert not robot.change_state("configure")
    _, message, values = robot.wait_for_status(
        lambda level, *_: level == ERROR[0], "an error in diagnostics"
    )
    assert "abacus" in message and values["bad input: parameter"] == "1"


def test_the_model_stays_while_it_is_loaded(
    start_node: StartNode, robot: Robot, model_path: Path
) -> None:
    node = start_node(autostart=False)
    assert robot.change_state("configure")
    (result,) = node.set_parameters([_model(model_path)])
    assert not result.successful
    assert "'model'" in result.reason and "unconfigured" in result.reason
    assert robot.change_state("cleanup")
    (result,) = node.set_parameters([_model(model_path)])
    assert result.successful


def test_without_vision_msgs_there_is_no_label_info(
    start_node: StartNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emu_perception.ros.publishers.LabelInfo", None)
    node = start_node()
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    assert node.count_publishers("semantic/label_info") == 0
    # The class names are there all the same.
    assert tuple(node.get_parameter("class_names").value) == load_label_set("camvid").names


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_shutdown(start_node: StartNode, robot: Robot, state: str) -> None:
    node = start_node(autostart=False)
    for transition in {
        "unconfigured": [],
        "inactive": ["configure"],
        "active": ["configure", "activate"],
    }[state]:
        assert robot.change_state(transition)
    assert robot.change_state(f"{state}_shutdown")
    assert robot.state() == "finalized"
    assert node.state == "finalized"
    wait_for_publishers(robot, 0)
    assert not robot.change_state("configure")


def _model(path: Path) -> Parameter:
    return Parameter("model", value=str(path))


def test_what_the_load_takes_cannot_change_while_it_lasts(
    start_node: StartNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    load = Predictor.from_pretrained

    def change(*arguments: Any, **options: Any) -> Predictor:
        answers.extend(node.set_parameters([Parameter("device", value="cuda")]))
        return load(*arguments, **options)

    monkeypatch.setattr(Predictor, "from_pretrained", staticmethod(change))
    node = start_node(autostart=False)
    assert robot.change_state("configure")
    assert [answer.successful for answer in answers] == [False]
    assert "only while the node is unconfigured" in answers[0].reason
    assert node.get_parameter("device").value == "cpu"


def test_nobody_subscribes_to_the_camera_behind_a_deactivation(
    start_node: StartNode, robot: Robot
) -> None:
    node = start_node()
    robot.camera()
    wait_for(lambda: node.state == "active", "the node to become active")
    source: Any = node._streams[0].source
    subscribe, subscribing = source.open, threading.Event()

    def slowly() -> None:
        subscribing.set()
        time.sleep(SETTLING)
        subscribe()

    source.open = slowly
    robot.listen("semantic/labels")
    wait_for(subscribing.is_set, "the node to listen")
    assert robot.change_state("deactivate")
    assert not source.is_open
    time.sleep(SETTLING)
    assert robot.cameras["image"].get_subscription_count() == 0


def test_what_fails_after_the_end_is_not_reported(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node(autostart=False)
    node._report(BadInput.INFERENCE, "a fault")
    monkeypatch.setattr(node.context, "ok", lambda: False)
    node._report(BadInput.INFERENCE, "its publisher's context is invalid")
    monkeypatch.undo()
    counts = node._statistics.snapshot()
    assert counts.bad == {BadInput.INFERENCE.value: 1}
