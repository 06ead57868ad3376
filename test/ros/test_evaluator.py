"""A drive played to the node and scored live gives the figures of the same maps, offline."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from typer.testing import CliRunner

from emu_perception.camera import Intrinsics
from emu_perception.cli import app
from emu_perception.evaluation import Evaluation
from emu_perception.messages.create import image_message as ros_image_message
from emu_perception.recordings import BagReader, BagWriter
from emu_perception.recordings.image_messages import (
    camera_info_message,
    header,
    image_message,
)
from emu_perception.recordings.output_messages import image_message as map_message
from emu_perception.recordings.truth import TruthFolder
from emu_perception.ros.bag_player import BagPlayer
from emu_perception.ros.evaluator import EvaluatorNode

from .conftest import SETTLING, SIZE, Spinning, wait_for

FRAMES = 4
CAMERA = Intrinsics.from_field_of_view(SIZE[1], SIZE[0], 60)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Images, a camera, and true depth for all but one of them; labels in a folder."""
    rng = np.random.default_rng(0)
    (tmp_path / "labels").mkdir()
    with BagWriter(tmp_path / "drive") as bag:
        for i in range(FRAMES):
            time_ns = (5 + i) * 10**9
            bag.write("/camera/camera_info", camera_info_message(CAMERA, time_ns), time_ns)
            image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            bag.write("/camera/image", image_message(image, time_ns), time_ns)
            depth = rng.uniform(5, 15, SIZE).astype(np.float32)
            if i != 2:
                message = map_message(header(time_ns, "camera"), "32FC1", depth)
                bag.write("/lidar/depth", message, time_ns + 1)
            labels = rng.integers(0, 11, SIZE, np.uint8)
            cv2.imwrite(str(tmp_path / "labels" / f"{i}.png"), labels)
    return tmp_path / "drive"


@pytest.fixture
def evaluator(tmp_path: Path, model_path: Path) -> Iterator[EvaluatorNode]:
    values = {"model": str(model_path), "report": str(tmp_path / "live"), "replicates": 0}
    node = EvaluatorNode(
        parameter_overrides=[Parameter(n, value=v) for n, v in values.items()],
        cli_args=["--ros-args", "-r", "image:=/camera/image"],
    )
    spinning = Spinning(SingleThreadedExecutor(), "evaluator")
    spinning.executor.add_node(node)
    yield node
    spinning.stop()
    node.destroy_node()


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_an_image_after_its_maps_is_no_problem(
    reliability: str, model_path: Path, evaluator: EvaluatorNode, robot: Any
) -> None:
    labels = np.zeros(SIZE, np.uint8)
    entropy = np.full(SIZE, 0.5, np.float32)
    maps = {"semantic/labels": ("mono8", labels), "semantic/confidence": ("mono8", labels)}
    maps["semantic/uncertainty"] = ("32FC1", entropy)
    for topic in (*maps, "/camera/image"):
        robot.camera(topic, reliability=reliability)

    def adapted() -> bool:
        found = robot.node.get_subscriptions_info_by_topic("/semantic/labels")
        return [s.qos_profile.reliability.name for s in found] == [reliability]

    wait_for(adapted, f"a subscription that is {reliability}")
    image = robot.image()
    for topic, (encoding, values) in maps.items():
        robot.send(ros_image_message(image.header, encoding, values), topic)
    robot.wait_for_status(lambda _, message, __: message.startswith("1 frame"), "a scored frame")
    robot.send(image, "/camera/image")
    robot.send(robot.image(), "/camera/image")
    time.sleep(SETTLING)
    assert evaluator.finish() is not None
    problems = evaluator.problems.values()
    # The image that nobody answered is one.
    assert {kind: found["count"] for kind, found in problems.items()} == {"image without maps": 1}


def scores(report: Path) -> tuple[dict[str, float], dict[str, Any]]:
    values = json.loads((report / "report.json").read_text())
    figures = {k: v for k, v in values.items() if k not in ("problems", "missing")}
    return Evaluation(figures).scalars(), values


def test_live_figures_are_those_of_the_published_maps(
    drive: Path,
    tmp_path: Path,
    model_path: Path,
    start_node: Any,
    evaluator: EvaluatorNode,
    robot: Any,
) -> None:
    remapped = ["-r", "image:=/camera/image", "-r", "camera_info:=/camera/camera_info"]
    start_node(cli_args=["--ros-args", *remapped])
    with BagReader(drive) as bag:
        player = BagPlayer(
            bag,
            "/camera/image",
            truth_topics={"depth": "/lidar/depth"},
            folders=[TruthFolder.open("labels", tmp_path / "labels")],
            answer_timeout=40.0,
        )
        player.wait_for_subscriber(40.0)
        player.play(100.0)
    assert player.unanswered == 0
    player.destroy_node()
    status = robot.wait_for_status(
        lambda _, message, values: (
            message.startswith(f"{FRAMES} frames") and "depth RMSE [m]" in values
        ),
        "all frames to be scored",
    )
    page = evaluator.finish()
    assert page == tmp_path / "live" / "report.html"

    run = CliRunner().invoke
    model = ["--model", str(model_path)]
    annotated = str(tmp_path / "annotated")
    command = [
        "bag",
        "annotate",
        str(drive),
        "--out",
        annotated,
        "--topic",
        "/camera/image",
        *model,
    ]
    found = run(app, [*command, "--engine", "pytorch"])
    assert found.exit_code == 0, found.output
    command = ["bag", "evaluate", annotated, "--published", *model]
    command += ["--labels", str(tmp_path / "labels"), "--depth-topic", "/lidar/depth"]
    found = run(app, [*command, "--report", str(tmp_path / "offline"), "--replicates", "0"])
    assert found.exit_code == 3, found.output

    live, values = scores(tmp_path / "live")
    offline, others = scores(tmp_path / "offline")
    assert (live["frames_with_labels"], live["frames_with_depth"]) == (FRAMES, FRAMES - 1)
    assert live.keys() == offline.keys() and len(live) > 50
    assert live == pytest.approx(offline, abs=1e-6, rel=0)
    assert status[2]["depth RMSE [m]"] == f"{live['depth.rmse']:.4g}"
    assert values["missing"] == others["missing"]
    assert values["semantic"]["nll"] is None and values["semantic"]["brier"] is None
    assert values["missing"]["semantic.nll"].startswith("offline only")
    assert values["problems"] == others["problems"]
    assert values["problems"]["image without depth"]["count"] == 1
