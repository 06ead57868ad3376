"""The ROS programs from outside: their usage, and how a signal ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from emu_perception.recordings import BagWriter
from emu_perception.recordings.image_messages import image_message

from .conftest import PATIENCE, wait_for


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("run_node", ("usage: emu_node", "camera_info", "focal_length", "image_transport")),
        ("evaluator", ("usage: emu_evaluator", "ground_truth/depth", "depth_scale")),
        ("bag_player", ("usage: emu_bag_player", "--wait")),
    ],
)
def test_help_prints_usage_and_ends(module: str, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", f"emu_perception.ros.{module}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("subscribed", [False, True], ids=["waiting", "playing"])
def test_a_signal_ends_the_player_without_a_traceback(
    robot, tmp_path: Path, number: signal.Signals, subscribed: bool
) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        for second in (1, 1000):  # a pause much longer than the test
            image = np.zeros((8, 8, 3), np.uint8)
            bag.write("/image", image_message(image, second * 10**9), second * 10**9)
    if subscribed:
        robot.listen("image")
    process = subprocess.Popen(
        [sys.executable, "-m", "emu_perception.ros.bag_player", str(tmp_path / "drive")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    readers = [
        threading.Thread(target=lambda stream=stream: lines.extend(stream), daemon=True)
        for stream in (process.stdout, process.stderr)
    ]
    for reader in readers:
        reader.start()
    words = "published_ns" if subscribed else "waiting up to 30 s for a subscriber of /image"
    try:
        wait_for(lambda: any(words in line for line in lines), words)
        process.send_signal(number)
        status = process.wait(PATIENCE)
    finally:
        process.kill()
    for reader in readers:
        reader.join()
    assert status in (0, 130, 143), lines
    assert "Traceback" not in "".join(lines)
