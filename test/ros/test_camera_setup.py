"""Mistakes in the set-up of a camera: no camera_info, the other transport, misspelt parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from emu_perception.inference.predictor import Predictor
from emu_perception.ros.diagnostics import OK, WARN

from .conftest import SIZE, Robot, StartNode, wait_for


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Returns what has been logged since the test began."""
    parts: list[str] = []

    def read() -> str:
        parts.append(capfd.readouterr().err)
        return "".join(parts)

    return read


def test_a_focal_length_serves_while_there_is_no_camera_info(
    start_node: StartNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    predict = Predictor.predict

    def watched(self: Predictor, image: Any, intrinsics: Any = None, **options: Any) -> Any:
        seen.append(intrinsics)
        return predict(self, image, intrinsics, **options)

    monkeypatch.setattr(Predictor, "predict", watched)
    start_node(focal_length=90.0, output_scale=0.5)
    robot.listen("depth/image", "points")
    image = robot.image()
    cloud = robot.answer(image, "points")
    given = seen[-1]
    assert (given.fx, given.fy, given.cx, given.cy) == (90.0, 90.0, 31.5, 23.5)
    points = np.frombuffer(cloud.data, np.float32).reshape(SIZE[0] // 2, SIZE[1] // 2, 7)
    expected = (0 - 15.5) / 45 * points[:, 0, 2]  # half the size, half the focal length
    assert np.allclose(points[:, 0, 0], expected, atol=1e-4, equal_nan=True)
    assert np.isfinite(expected).any()

    robot.send(robot.camera_info(focal=60.0), "camera_info")
    wait_for(
        lambda: robot.answer(robot.image(), "depth/image") and seen[-1].fx == 60.0,
        "camera_info to replace the parameter",
    )


def test_a_misspelt_parameter_is_named_with_the_closest_one(
    start_node: StartNode, robot: Robot, log: Callable[[], str]
) -> None:
    start_node(autostart=False, focal_lenght=90.0, xyz=1, use_sim_time=False)
    expected = (
        "unknown parameters are ignored: 'focal_lenght' (did you mean 'focal_length'?), 'xyz'"
    )
    assert wait_for(lambda: expected in log(), "the warning in the log")


def test_a_node_without_mistakes_warns_of_nothing(
    start_node: StartNode, robot: Robot, log: Callable[[], str]
) -> None:
    overrides = {"qos_overrides./semantic/labels.publisher.depth": 3}
    start_node(autostart=False, output_scale=1.0, **overrides)
    wait_for(lambda: robot.state() == "unconfigured", "the node")
    assert "unknown parameters" not in log()


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_a_camera_of_the_other_transport_is_named(
    start_node: StartNode, robot: Robot, log: Callable[[], str], transport: str
) -> None:
    if transport == "raw":
        robot.camera("image/compressed", kind=CompressedImage)
        words = (
            "/image has no publisher, but /image/compressed has one: set the parameter "
            "image_transport to compressed"
        )
    else:
        robot.camera()
        words = (
            "/image/compressed has no publisher, but /image has one: set the parameter "
            "image_transport to raw"
        )
    start_node(image_transport=transport)
    robot.wait_for_status(
        lambda level, message, _: level == WARN[0] and message == words, "the transport"
    )
    wait_for(lambda: words in log(), "the warning in the log")
    # The camera's own transport begins: the warning ends.
    robot.camera(
        *(("image",) if transport == "raw" else ("image/compressed", "RELIABLE", CompressedImage))
    )
    robot.wait_for_status(lambda level, *_: level == OK[0], "the end of the warning")
    assert log().count(words) == 1


def test_the_log_names_the_topic_that_is_waited_for(
    start_node: StartNode, robot: Robot, log: Callable[[], str]
) -> None:
    start_node()
    wait_for(lambda: "active; idle until an output has a subscriber" in log(), "that it is active")
    robot.listen("semantic/labels")
    wait_for(lambda: "active; waiting for images on /image" in log(), "the topic in the log")
