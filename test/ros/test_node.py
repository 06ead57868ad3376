"""What the node publishes: topics, encodings, headers, sizes, who may listen."""

from __future__ import annotations

import struct
import sys

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo

from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.messages.compressed import COMPRESSED_DEPTH_TOPIC, COMPRESSED_OUTPUTS
from emu_perception.messages.images import rgb_from_image
from emu_perception.messages.topics import IMAGE_OUTPUTS

from .conftest import FRAME, SIZE, Robot, wait_for

IMAGE_TOPICS = [t for t in IMAGE_OUTPUTS if "epistemic" not in t]


def pixels(message):
    dtype, channels = {
        "mono8": (np.uint8, 1),
        "32FC1": (np.float32, 1),
        "rgb8": (np.uint8, 3),
    }[message.encoding]
    assert message.step == message.width * channels * np.dtype(dtype).itemsize
    assert len(message.data) == message.height * message.step
    shape = (message.height, message.width) + ((3,) if channels == 3 else ())
    return np.frombuffer(message.data, dtype).reshape(shape)


def test_every_image_topic_shows_the_predictors_maps(active_node, robot, model_path) -> None:
    robot.listen(*IMAGE_TOPICS)
    image = robot.image()
    robot.send(image)
    got = {topic: robot.wait_for_answer(image, topic) for topic in IMAGE_TOPICS}

    for topic, message in got.items():
        assert message.header == image.header, topic
        assert message.encoding == IMAGE_OUTPUTS[topic].encoding, topic
        assert (message.height, message.width) == SIZE, topic
        assert message.is_bigendian == (sys.byteorder == "big")
    expected = Predictor.from_pretrained(model_path, "cpu", engine="pytorch").predict(
        rgb_from_image(image)
    )
    labels = pixels(got["semantic/labels"])
    assert np.array_equal(labels, expected.labels)
    assert np.abs(pixels(got["semantic/confidence"]) / 255 - expected.confidence).max() < 0.003
    entropy = pixels(got["semantic/uncertainty"])
    assert np.allclose(entropy, expected.semantic_entropy / np.log(11), atol=1e-6)
    assert entropy.min() >= 0 and entropy.max() <= 1 + 1e-6
    depth = pixels(got["depth/image"])
    assert np.allclose(depth, expected.depth, equal_nan=True)
    assert np.isnan(depth[labels == load_label_set("camvid").index("sky")]).all()
    assert np.allclose(pixels(got["depth/uncertainty"]), expected.depth_std, equal_nan=True)
    assert np.array_equal(
        pixels(got["semantic/color"]), load_label_set("camvid").palette[expected.labels]
    )


def test_compressed_siblings_show_the_same(active_node, robot) -> None:
    robot.listen("semantic/labels")  # keeps the node listening to its camera
    for sibling, topic in COMPRESSED_OUTPUTS.items():
        answers = []
        # Each alone: its maps are computed although the raw topic has no subscriber.
        for each in (sibling, topic):
            subscriptions = robot.listen(each)
            wait_for(
                lambda each=each: each in active_node._streams[0].outputs.wanted(),
                f"a subscriber of {each}",
            )
            image = robot.image(seed=7)
            answers.append(robot.answer(image, each))
            assert answers[-1].header == image.header, each
            robot.unlisten(subscriptions)
        message, raw = answers[0], pixels(answers[1])
        data = np.frombuffer(message.data, np.uint8)
        if sibling == COMPRESSED_DEPTH_TOPIC:
            assert message.format == "32FC1; compressedDepth png"
            codes = cv2.imdecode(data[12:], cv2.IMREAD_UNCHANGED)
            _, a, b = struct.unpack("<iff", data[:12].tobytes())
            assert np.array_equal(codes == 0, np.isnan(raw))
            valid = codes > 0
            assert np.allclose(a / (codes[valid] - b), raw[valid], rtol=0.01)
        else:
            assert message.format == "rgb8; jpeg compressed bgr8"
            found = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            assert np.abs(found.astype(int) - raw).mean() < 30, sibling
            assert found.shape == raw.shape


def test_a_model_without_members_has_no_epistemic_topics(active_node, robot) -> None:
    names = [name for name, _ in active_node.get_topic_names_and_types()]
    assert "/semantic/uncertainty" in names
    assert not any("epistemic" in name for name in names)


def test_points_lie_on_the_rays_of_their_pixels(active_node, robot) -> None:
    robot.listen("points", "depth/image", "semantic/labels", "depth/camera_info")
    robot.send(robot.camera_info(), "camera_info")
    image = robot.image()
    robot.answer(image, "depth/image")
    # camera_info and image travel apart: the first image may overtake the first camera_info.
    image = robot.image()
    cloud = robot.answer(image, "points")
    depth = pixels(robot.wait_for_answer(image, "depth/image"))
    labels = pixels(robot.wait_for_answer(image, "semantic/labels"))

    assert cloud.header == image.header
    assert (cloud.height, cloud.width) == SIZE and not cloud.is_dense
    assert cloud.row_step == cloud.width * cloud.point_step == 64 * 28
    assert [(f.name, f.offset) for f in cloud.fields] == [
        ("x", 0),
        ("y", 4),
        ("z", 8),
        ("rgb", 12),
        ("label", 16),
        ("semantic_uncertainty", 20),
        ("depth_std", 24),
    ]
    points = np.frombuffer(cloud.data, np.float32).reshape(*SIZE, 7)
    assert np.array_equal(points[..., 2], depth, equal_nan=True)
    u, v = np.meshgrid(np.arange(64), np.arange(48))
    assert np.allclose(points[..., 0], (u - 31.5) / 60 * depth, atol=1e-5, equal_nan=True)
    assert np.allclose(points[..., 1], (v - 23.5) / 60 * depth, atol=1e-5, equal_nan=True)
    assert np.array_equal(points[..., 4].view(np.uint32), labels)
    rgb = np.ascontiguousarray(points[..., 3]).view(np.uint32)
    shown = np.stack([rgb >> 16, rgb >> 8 & 255, rgb & 255], axis=-1)
    assert np.array_equal(shown, rgb_from_image(image))
    info = robot.wait_for_answer(image, "depth/camera_info")
    assert info.header == image.header and list(info.k) == list(robot.camera_info().k)


def test_output_scale_is_the_same_for_all(start_node, robot) -> None:
    start_node(output_scale=0.5)
    topics = [*IMAGE_TOPICS, "points", "depth/camera_info"]
    robot.listen(*topics)
    robot.send(robot.camera_info(), "camera_info")
    robot.answer(robot.image(), "overlay")
    image = robot.image()
    robot.send(image)
    for topic in topics:
        message = robot.wait_for_answer(image, topic)
        assert (message.height, message.width) == (24, 32), topic
        assert message.header == image.header
    info = robot.wait_for_answer(image, "depth/camera_info")
    assert info.k[0] == 30 and info.p[0] == 30
    # The principal point is in the middle of the pixels, before and after.
    assert info.k[2] == info.p[2] == 15.5 and info.k[5] == info.p[6] == 11.5


def test_metres_follow_the_focal_length(active_node, robot) -> None:
    robot.listen("depth/image", "semantic/labels")
    robot.send(robot.camera_info(focal=60.0), "camera_info")
    robot.answer(robot.image(), "depth/image")
    first = pixels(robot.answer(robot.image(), "depth/image"))
    robot.send(robot.camera_info(focal=30.0), "camera_info")
    robot.answer(robot.image(), "depth/image")
    second = pixels(robot.answer(robot.image(), "depth/image"))
    assert np.allclose(second, first / 2, rtol=1e-4, equal_nan=True)
    assert np.isfinite(first).any()


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_reliable_and_best_effort_listeners(active_node, robot, reliability) -> None:
    robot.listen("semantic/labels", reliability=reliability)
    message = robot.answer(robot.image(), "semantic/labels")
    assert message.header.frame_id == FRAME
    publishers = robot.node.get_publishers_info_by_topic("/semantic/labels")
    assert [p.qos_profile.reliability.name for p in publishers] == ["RELIABLE"]


@pytest.mark.parametrize("offered", ["RELIABLE", "BEST_EFFORT"])
def test_input_reliability_follows_the_camera(active_node, robot, offered) -> None:
    robot.camera(reliability=offered)
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")

    def adapted() -> bool:
        found = robot.node.get_subscriptions_info_by_topic("/image")
        return [s.qos_profile.reliability.name for s in found] == [offered]

    wait_for(adapted, f"a subscription that is {offered}")
    image = robot.image()
    assert robot.answer(image, "semantic/labels").header == image.header


def test_a_best_effort_camera_beside_a_reliable_one(active_node, robot) -> None:
    robot.camera()
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    best_effort = Robot()
    try:
        best_effort.camera(reliability="BEST_EFFORT")
        image = best_effort.image()
        best_effort.send(image)
        assert robot.wait_for_answer(image, "semantic/labels").header == image.header
    finally:
        best_effort.close()


def test_qos_overrides_by_parameter(start_node, robot) -> None:
    start_node(
        **{
            "qos_overrides./semantic/labels.publisher.reliability": "best_effort",
            "qos_overrides./semantic/labels.publisher.depth": 2,
            "qos_overrides./depth/image.publisher.depth": 7,
        }
    )
    robot.listen("semantic/labels", reliability="BEST_EFFORT")
    robot.answer(robot.image(), "semantic/labels")
    (labels,) = robot.node.get_publishers_info_by_topic("/semantic/labels")
    (depth,) = robot.node.get_publishers_info_by_topic("/depth/image")
    assert labels.qos_profile.reliability.name == "BEST_EFFORT"
    assert depth.qos_profile.reliability.name == "RELIABLE"


def test_a_latched_camera_info_that_came_before_everything(start_node, robot) -> None:
    qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.node.create_publisher(CameraInfo, "camera_info", qos).publish(robot.camera_info())
    start_node()
    robot.listen("depth/camera_info")
    image = robot.image()
    answers = robot.messages["depth/camera_info"]

    def answered() -> bool:
        robot.send(image)
        return bool(answers)

    wait_for(answered, "the camera's info on an output")
    assert answers[0].header == image.header
    assert list(answers[0].k) == list(robot.camera_info().k)


def test_compressed_images_come_from_the_sibling_of_the_remapped_topic(start_node, robot) -> None:
    start_node(image_transport="compressed", cli_args=["--ros-args", "-r", "image:=/front/raw"])
    robot.listen("semantic/labels")
    colors = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    for kind in (".jpg", ".png"):
        data = cv2.imencode(kind, colors)[1].tobytes()
        message = robot.compressed(data, kind[1:])
        answer = robot.answer(message, "semantic/labels", source="/front/raw/compressed")
        assert answer.header == message.header and (answer.height, answer.width) == SIZE


def test_several_nodes_in_namespaces(start_node, robot) -> None:
    topics = []
    for name in ("left", "right"):
        start_node(namespace=name)
        robot.listen(f"/{name}/semantic/labels")
        topics.append(f"/{name}/semantic/labels")
    images = [robot.image(), robot.image()]
    for name, image, topic in zip(("left", "right"), images, topics):
        assert robot.answer(image, topic, source=f"/{name}/image").header == image.header
    assert [len(robot.messages[topic]) for topic in topics] == [1, 1]
    robot.wait_for_status(lambda *_: True, "diagnostics")
    wait_for(
        lambda: (
            {"/left/emu_perception", "/right/emu_perception"} <= {s.name for s in robot.diagnostics}
        ),
        "diagnostics of both",
    )


def test_class_names_are_a_read_only_parameter(active_node) -> None:
    parameter = active_node.get_parameter("class_names")
    assert tuple(parameter.value) == load_label_set("camvid").names
    assert active_node.describe_parameter("class_names").read_only
    assert not active_node.set_parameters_atomically([parameter]).successful
