"""The launch file in a full ROS installation: `launch_test test/launch/node.launch.py`.

pytest does not collect this file: launch_testing is not among the ROS packages that pip installs.
"""

from __future__ import annotations

import time
import unittest
from pathlib import Path

import launch_testing.actions
import launch_testing.asserts
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from launch import LaunchDescription  # type: ignore[attr-defined]

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "emu_perception.launch.py"
START_SECONDS = 180.0


def generate_test_description() -> LaunchDescription:
    """Describe the node as a user launches it."""
    node = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(LAUNCH_FILE)))
    return LaunchDescription([node, launch_testing.actions.ReadyToTest()])


class TestNode(unittest.TestCase):
    """While the node runs."""

    def test_becomes_active(self) -> None:
        rclpy.init()
        node = rclpy.create_node("watcher")
        found: list[str] = []
        node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda message: found.extend(status.message for status in message.status),
            10,
        )
        deadline = time.monotonic() + START_SECONDS
        while not any(message.startswith("idle") for message in found):
            assert time.monotonic() < deadline, f"not active: {found[-1:]}"
            rclpy.spin_once(node, timeout_sec=1.0)
        node.destroy_node()
        rclpy.shutdown()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """After the launch was interrupted."""

    def test_exit_status(self, proc_info: launch_testing.ProcInfoHandler) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, [0, 130])
