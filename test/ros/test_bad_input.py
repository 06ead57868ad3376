"""Bad input is counted by kind, said in diagnostics, and survived."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from emu_perception.messages.errors import BadInput
from emu_perception.ros import statistics
from emu_perception.ros.node import EmuNode
from emu_perception.ros.parameters import ParameterError
from emu_perception.ros.settings import Settings
from emu_perception.ros.statistics import LOG_INTERVAL, Answer, Statistics

from .conftest import SIZE, Robot, StartNode, wait_for


@pytest.fixture(autouse=True)
def _frequent_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_perception.ros.node.DIAGNOSTICS_PERIOD", 0.1)


def wait_for_report(robot: Robot, kind: BadInput, number: int, words: str) -> None:
    """Wait until diagnostics count that many, and said `words` at any time so far."""

    def reported() -> bool:
        statuses = list(robot.diagnostics)
        counts = [
            v.value for s in statuses for v in s.values if v.key == f"bad input: {kind.value}"
        ]
        return str(number) in counts[-1:] and any(words in s.message for s in statuses)

    wait_for(reported, f"{number} of '{kind.value}' saying '{words}'; last: {robot.latest()}")


# Images


def unknown_encoding(image: Image) -> None:
    image.encoding = "32FC1"


def unconvertible(image: Image) -> None:
    # 4:2:2 has a colour for every two pixels.
    image.encoding, image.height, image.width, image.step = "yuv422", 3, 3, 6
    image.data = bytes(18)


def small_step(image: Image) -> None:
    image.step = image.width


def short_data(image: Image) -> None:
    image.data = image.data[:-1]


def long_data(image: Image) -> None:
    image.data = bytes(image.data) + b"\0"


def no_data(image: Image) -> None:
    image.data = b""


def zero_size(image: Image) -> None:
    image.height = image.width = image.step = 0
    image.data = b""


def zero_height(image: Image) -> None:
    image.height = 0
    image.data = b""


def claims_to_be_huge(image: Image) -> None:
    image.height = image.width = 2**32 - 1
    image.step = 2**32 - 1


BAD_IMAGES: list[tuple[Callable[[Image], None], BadInput, str]] = [
    (unknown_encoding, BadInput.ENCODING, "encoding is '32FC1', expected one of"),
    (unconvertible, BadInput.ENCODING, "cannot be converted to RGB"),
    (small_step, BadInput.LAYOUT, "step is 64 bytes, but 64 pixels of 'rgb8' need 192"),
    (short_data, BadInput.LAYOUT, "has 9215 bytes of data, expected 9216"),
    (long_data, BadInput.LAYOUT, "has 9217 bytes of data, expected 9216"),
    (no_data, BadInput.LAYOUT, "has 0 bytes of data, expected 9216"),
    (zero_size, BadInput.EMPTY, "0 x 0 pixels: it is empty"),
    (zero_height, BadInput.EMPTY, "64 x 0 pixels: it is empty"),
    (claims_to_be_huge, BadInput.TOO_LARGE, "are allowed (the node's parameter max_image_pixels)"),
]


def test_bad_images_are_counted_and_the_next_good_one_is_answered(
    active_node: EmuNode, robot: Robot
) -> None:
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    counts = dict.fromkeys(BadInput, 0)
    for spoil, kind, words in BAD_IMAGES:
        image = robot.image()
        spoil(image)
        robot.send(image)
        counts[kind] += 1
        wait_for_report(robot, kind, counts[kind], words)
        answer = robot.answer(robot.image(), "semantic/labels")
        assert (answer.height, answer.width) == SIZE, spoil.__name__
    assert len(robot.messages["semantic/labels"]) == 1 + len(BAD_IMAGES)
    _, _, values = robot.wait_for_status(lambda *_: True, "diagnostics")
    found = {k.removeprefix("bad input: "): v for k, v in values.items() if "bad input" in k}
    assert found == {kind.value: str(number) for kind, number in counts.items() if number}


def test_max_image_pixels_is_the_largest_image(start_node: StartNode, robot: Robot) -> None:
    node = start_node(max_image_pixels=SIZE[0] * SIZE[1])
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    robot.send_image((SIZE[0], SIZE[1] + 1))
    wait_for_report(robot, BadInput.TOO_LARGE, 1, "65 x 48 = 3120 pixels")
    robot.answer(robot.image(), "semantic/labels")
    assert node.set_parameters([Parameter("max_image_pixels", value=4000)])[0].successful
    answer = robot.answer(robot.image((SIZE[0], SIZE[1] + 1)), "semantic/labels")
    assert (answer.height, answer.width) == (SIZE[0], SIZE[1] + 1)


def test_a_new_image_size_is_counted_and_answered(active_node: EmuNode, robot: Robot) -> None:
    robot.listen("semantic/labels", "depth/image")
    robot.answer(robot.image(), "semantic/labels")
    for number, size in enumerate([(30, 50), (1, 1), SIZE], start=1):
        image = robot.image(size)
        robot.send(image)
        for topic in ("semantic/labels", "depth/image"):
            answer = robot.wait_for_answer(image, topic)
            assert (answer.height, answer.width) == size
        wait_for_report(robot, BadInput.SIZE_CHANGE, number, f"to {size[1]} x {size[0]}")


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_corrupt_compressed_images_are_counted(start_node: StartNode, robot: Robot) -> None:
    start_node(image_transport="compressed")
    robot.listen("semantic/labels")
    topic = "image/compressed"
    robot.answer(robot.compressed(jpeg()), "semantic/labels", topic)
    wide = cv2.imencode(".png", np.zeros((5000, 5000), np.uint8))[1].tobytes()
    bad: list[tuple[bytes, str, BadInput, str]] = [
        (b"", "jpeg", BadInput.EMPTY, "has no data"),
        (b"not a picture", "jpeg", BadInput.CORRUPT, "not an image file"),
        (jpeg()[:10], "jpeg", BadInput.CORRUPT, "is cut off"),
        (jpeg()[: len(jpeg()) // 2], "jpeg", BadInput.CORRUPT, "end-of-image marker"),
        (wide, "png", BadInput.TOO_LARGE, "5000 x 5000 = 25000000 pixels"),
        (jpeg(), "16UC1; compressedDepth", BadInput.ENCODING, "holds depth"),
    ]
    counts = dict.fromkeys(BadInput, 0)
    for data, name, kind, words in bad:
        message: CompressedImage = robot.compressed(data, name)
        robot.send(message, topic)
        counts[kind] += 1
        wait_for_report(robot, kind, counts[kind], words)
        robot.answer(robot.compressed(jpeg(1)), "semantic/labels", topic)
    assert len(robot.messages["semantic/labels"]) == 1 + len(bad)


# camera_info


def uncalibrated(info: CameraInfo) -> None:
    info.k, info.p, info.d = [0.0] * 9, [0.0] * 12, []


def not_a_number(info: CameraInfo) -> None:
    info.k[0] = info.p[0] = float("nan")


def infinite_distortion(info: CameraInfo) -> None:
    info.d = [float("inf"), 0.0, 0.0, 0.0, 0.0]


def another_size(info: CameraInfo) -> None:
    info.height, info.width = 480, 640


def zero_sized(info: CameraInfo) -> None:
    info.height = info.width = 0


def another_frame(info: CameraInfo) -> None:
    info.header.frame_id = "rear_camera"


def unknown_distortion(info: CameraInfo) -> None:
    info.distortion_model, info.d = "fairground_mirror", [0.1, 0.2]


BAD_CAMERA_INFOS: list[tuple[Callable[[CameraInfo], None], str]] = [
    (uncalibrated, "is uncalibrated (K[0] = 0)"),
    (not_a_number, "has NaN or infinite values"),
    (infinite_distortion, "has NaN or infinite values"),
    (another_size, "is for 640 x 480 pixels"),
    (zero_sized, "is for 0 x 0 pixels"),
    (another_frame, "is in the frame 'rear_camera'"),
    (unknown_distortion, "has the distortion model 'fairground_mirror' with 2 coefficients"),
]


def test_bad_camera_infos_are_counted_and_depth_goes_on(active_node: EmuNode, robot: Robot) -> None:
    robot.listen("depth/image", "points", "depth/camera_info")
    without_points = []

    def said(words: str) -> bool:
        # camera_info and image travel apart, so it takes an unknown number of images.
        image = robot.image()
        robot.answer(image, "depth/image")
        without_points.append(image)
        return any(words in status.message for status in list(robot.diagnostics))

    wait_for(lambda: said("points needs camera_info, and none has come on /camera_info"), "none")
    for spoil, words in BAD_CAMERA_INFOS:
        robot.diagnostics.clear()
        info = robot.camera_info()
        spoil(info)
        robot.send(info, "camera_info")
        wait_for(lambda words=words: said(f"camera_info {words}"), words)
    _, _, values = robot.wait_for_status(lambda *_: True, "diagnostics")
    assert int(values["bad input: camera_info"]) > len(BAD_CAMERA_INFOS)
    assert set(values) & {f"bad input: {kind.value}" for kind in BadInput} == {
        "bad input: camera_info"
    }

    robot.send(robot.camera_info(), "camera_info")
    answered = []

    def recovered() -> bool:
        image = robot.image()
        robot.answer(image, "depth/image")
        answered.append(image.header.stamp)
        return bool(robot.messages["points"] and robot.messages["depth/camera_info"])

    wait_for(recovered, "points after a good camera_info")
    for topic in ("points", "depth/camera_info"):
        assert all(message.header.stamp in answered for message in robot.messages[topic])


# Parameters


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("output_scale", 2.0, ("output_scale", "from 0.01 to 1")),
        ("min_confidence", float("nan"), ("min_confidence", "from 0 to 1")),
        ("max_image_pixels", 0, ("max_image_pixels", "from 1 to")),
        ("output_scale", 2, ("output_scale", "from 0.01 to 1")),
        ("output_scale", "1", ("output_scale", "must be a number")),
        ("max_image_pixels", 1.0, ("max_image_pixels", "an integer")),
        ("autostart", "perhaps", ("autostart", "true or false")),
        ("image_transport", "pigeon", ("image_transport", "'pigeon'", "raw, compressed")),
        ("depth_colormap", "grey", ("depth_colormap", "'grey'", "turbo")),
    ],
)
def test_a_bad_parameter_at_the_start_is_a_readable_error(
    start_node: StartNode, name: str, value: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(ParameterError) as raised:
        start_node(**{name: value})
    for word in words:
        assert word in str(raised.value)


def test_an_integer_is_a_number(start_node: StartNode, robot: Robot) -> None:
    node = start_node(cli_args=["--ros-args", "-p", "output_scale:=1"], autostart=False)
    assert node.get_parameter("output_scale").value == 1.0
    parameter = Parameter("overlay_alpha", value=1).to_parameter_msg()
    (result,) = robot.call(
        SetParameters,
        "emu_perception/set_parameters",
        SetParameters.Request(parameters=[parameter]),
    ).results
    assert result.successful, result.reason
    given = node.get_parameter("overlay_alpha").value
    assert (type(given), given) == (float, 1.0)


def test_a_bad_parameter_at_run_time_is_refused_with_the_reason(
    active_node: EmuNode, robot: Robot
) -> None:
    bad: list[tuple[str, Any, str]] = [
        ("output_scale", 2.0, "output_scale"),
        ("min_confidence", -0.1, "min_confidence"),
        ("min_confidence", float("nan"), "min_confidence"),
        ("overlay_alpha", "half", "'overlay_alpha' must be a number, not 'half'"),
        ("overlay_alpha", 2, "overlay_alpha"),
        ("overlay_alpha", True, "must be a number, not True"),
        ("rectification", "maybe", "expected one of auto, rectified, raw"),
        ("precision", "fp16", "only while the node is unconfigured"),
        ("autostart", False, "autostart"),
        ("class_names", ["road"], "class_names"),
    ]
    for number, (name, value, words) in enumerate(bad, start=1):
        before = active_node.get_parameter(name).value
        parameter = Parameter(name, value=value).to_parameter_msg()
        (result,) = robot.call(
            SetParameters,
            "emu_perception/set_parameters",
            SetParameters.Request(parameters=[parameter]),
        ).results
        assert not result.successful, name
        assert words in result.reason
        assert active_node.get_parameter(name).value == before
        wait_for_report(robot, BadInput.PARAMETER, number, words)
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")


# Logging


def test_a_kind_is_logged_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(statistics, "time", SimpleNamespace(monotonic=lambda: clock.now))
    counters = Statistics()
    # The first of each kind at once, even just after the machine started.
    assert counters.bad(BadInput.ENCODING, "first") == "first"
    assert counters.bad(BadInput.LAYOUT, "other") == "other"
    for _ in range(30):
        clock.now += LOG_INTERVAL / 40
        assert counters.bad(BadInput.ENCODING, "again") is None
    clock.now = LOG_INTERVAL
    assert counters.bad(BadInput.ENCODING, "later") == "later (30 more since the last message)"
    assert counters.bad(BadInput.ENCODING, "again") is None
    clock.now = 5 * LOG_INTERVAL
    assert counters.bad(BadInput.ENCODING, "last") == "last (1 more since the last message)"
    clock.now = 6 * LOG_INTERVAL
    assert counters.bad(BadInput.ENCODING, "alone") == "alone"
    # All are counted, logged or not.
    snapshot = counters.snapshot()
    assert snapshot.bad == {BadInput.ENCODING.value: 35, BadInput.LAYOUT.value: 1}
    assert snapshot.recent_bad[BadInput.ENCODING.value] == "alone"
    assert counters.snapshot().recent_bad == {}


def test_a_slow_watch_is_remembered_until_its_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(statistics, "time", SimpleNamespace(monotonic=lambda: clock.now))
    counters = Statistics()
    counters.answered(Answer(0.0, 0.1, 0.1, 0.0, semantic_uncertainty=0.9))
    clock.now = 11.0
    every_ten_seconds = Settings(monitor_rate=0.1).statistics_seconds
    assert counters.snapshot(every_ten_seconds).mean("semantic_uncertainty") == 0.9
    assert counters.snapshot(Settings().statistics_seconds).mean("semantic_uncertainty") is None
