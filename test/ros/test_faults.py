"""Faults of the machine: memory that is not there, a node that is killed."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from emu_perception import processes
from emu_perception.messages.errors import BadInput
from emu_perception.processes import Children, ros_arguments, ros_environment
from emu_perception.transport import PROFILE_VARIABLE

from .conftest import PATIENCE, EmuNode, Robot, wait_for


def test_an_engine_out_of_memory_costs_one_image(
    active_node: EmuNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    engine: Any = active_node._predictor._engine
    run = engine.run

    def fail(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(engine, "run", run)
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB")

    monkeypatch.setattr(engine, "run", fail)
    robot.send(robot.image())
    kind = f"bad input: {BadInput.INFERENCE.value}"
    _, message, _ = robot.wait_for_status(lambda _, __, v: v.get(kind) == "1", "a counted image")
    assert "out of memory" in message and "\n" not in message
    robot.answer(robot.image(), "semantic/labels")


def test_the_node_stops_while_a_new_size_compiles(
    active_node: EmuNode, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot.listen("semantic/labels")
    robot.answer(robot.image(), "semantic/labels")
    predictor: Any = active_node._predictor
    compiles, compiled, closed = threading.Event(), threading.Event(), threading.Event()
    run, close = predictor._engine.run, predictor._engine.close

    def slow(*arguments: Any, **options: Any) -> Any:
        compiles.set()
        assert compiled.wait(PATIENCE)
        assert not closed.is_set()
        return run(*arguments, **options)

    monkeypatch.setattr(predictor._engine, "run", slow)
    monkeypatch.setattr(predictor._engine, "close", lambda: (closed.set(), close()))
    robot.send(robot.image((40, 56)))
    assert compiles.wait(PATIENCE)
    # Each returns although the engine has not.
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert robot.change_state(transition), transition
    image = robot.send(robot.image())
    assert not closed.is_set()
    compiled.set()
    robot.wait_for_answer(image, "semantic/labels")
    assert closed.wait(PATIENCE)
    robot.wait_for_status(lambda _, __, v: v.get("not wanted") == "1", "the image left behind")


def test_a_node_without_shared_memory_answers(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "free_bytes", lambda: 1 << 20)
    environment = ros_environment()
    assert environment[PROFILE_VARIABLE].endswith("fastdds_udp.xml")
    parameters = {"model": str(model_path), "autostart": True, "device": "cpu", "engine": "pytorch"}
    with Children(environment, tmp_path) as children:
        topics = ["semantic/labels"]
        listener = children.start(
            "listener", "emu_perception.ros.benchmark_listener", topics, events=True
        )
        arguments = ["--size=64x48", "--rate=5", "--camera-info"]
        children.start("camera", "emu_perception.ros.benchmark_camera", arguments, events=True)
        children.start("node", "emu_perception.ros.run_node", ros_arguments(parameters))
        wait_for(
            lambda: any(each["event"] == "frame" for each in listener.new_events()), "answers", 140
        )


def test_a_killed_node_starts_again(model_path: Path, tmp_path: Path) -> None:
    """Shared memory that it leaves behind blocks neither the camera nor the next node."""
    parameters = {
        "model": str(model_path),
        "autostart": True,
        "device": "cpu",
        "engine": "pytorch",
    }
    with Children(ros_environment(), tmp_path) as children:
        topics = ["semantic/labels"]
        listener = children.start(
            "listener", "emu_perception.ros.benchmark_listener", topics, events=True
        )
        arguments = ["--size=64x48", "--rate=5", "--camera-info"]
        children.start("camera", "emu_perception.ros.benchmark_camera", arguments, events=True)
        for number in range(2):
            node = children.start(
                f"node_{number}", "emu_perception.ros.run_node", ros_arguments(parameters)
            )
            frames: list[Any] = []

            def is_answering(frames: list[Any] = frames) -> bool:
                frames += [each for each in listener.new_events() if each["event"] == "frame"]
                return len(frames) > 2

            assert wait_for(is_answering, f"answers of node {number}", 140)
            node.process.send_signal(signal.SIGKILL)
            assert node.process.wait() == -signal.SIGKILL
            time.sleep(1)
            list(listener.new_events())
