"""Sends the node through its lifecycle again and again: `python -m … --cycles 1000`.

Each cycle configures, activates, sends images until one is answered, deactivates and cleans up. It
reports each on standard output as a JSON line (`"event": "cycle"`).
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from emu_perception.messages.create import image_message
from emu_perception.ros.executor import NodeExecutor
from emu_perception.ros.programs import report, run_program, spin_in_thread
from emu_perception.ros.soak_robot import SoakRobot

ANSWER_SECONDS = 120.0
"""For an image to be answered; the first one of a cycle may compile."""
RESEND_SECONDS = 0.2
"""The first images are lost while publisher and subscription discover each other."""
PAUSE_SECONDS = 0.1
"""After each cycle, to read the node's memory."""
OUTPUTS = ("semantic/labels", "depth/image")
"""Subscribed to; a model has one of them at least."""
SIZE = (48, 64)


class CycleRobot(SoakRobot):
    """Lifecycle manager, camera and subscriber."""

    def __init__(self, node: str) -> None:
        super().__init__(node, seed=0)
        self._watched = node
        self._answered = threading.Event()
        self._camera = self.create_publisher(Image, "image", QoSProfile(depth=1))
        for topic in OUTPUTS:
            self.create_subscription(Image, topic, lambda data: self._answered.set(), 1, raw=True)
        self._image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)

    def wait_until_answering(self) -> None:
        """Wait until the node answers: a request before it has discovered this client is lost.

        Raises:
            TimeoutError: it did not answer.
        """
        client: Any = self.create_client(GetState, f"{self._watched}/get_state")
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            done = threading.Event()
            if client.wait_for_service(RESEND_SECONDS):
                future = client.call_async(GetState.Request())
                future.add_done_callback(lambda _, done=done: done.set())
                if done.wait(1.0):
                    return
                client.remove_pending_request(future)
        raise TimeoutError(f"{self._watched} did not answer within {ANSWER_SECONDS:g} s")

    def cycle(self) -> None:
        """One cycle.

        Raises:
            TimeoutError: a transition failed, or no image was answered.
        """
        self._require("configure", "activate")
        self._answered.clear()
        end = time.monotonic() + ANSWER_SECONDS
        while not self._answered.wait(RESEND_SECONDS):
            if time.monotonic() > end:
                raise TimeoutError(f"no image was answered within {ANSWER_SECONDS:g} s")
            header = Header(frame_id="camera", stamp=self.get_clock().now().to_msg())
            self._camera.publish(image_message(header, "rgb8", self._image))
        self._require("deactivate", "cleanup")

    def _require(self, *names: str) -> None:
        for line in self.transitions(*names):
            if not line.endswith("done"):
                raise TimeoutError(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cycles."""
    parser = argparse.ArgumentParser(prog="soak_cycles", description=__doc__)
    parser.add_argument("--node", default="emu_perception", help="name of the node")
    parser.add_argument("--cycles", type=int, required=True, help="number of cycles")
    options = parser.parse_args(arguments)

    def run() -> None:
        robot = CycleRobot(options.node)
        executor = NodeExecutor()
        executor.add_node(robot)

        spin_in_thread(executor)
        robot.wait_until_answering()
        for number in range(1, options.cycles + 1):
            robot.cycle()
            report({"event": "cycle", "number": number})
            time.sleep(PAUSE_SECONDS)
        while rclpy.ok():
            time.sleep(0.1)

    return run_program(run, TimeoutError)


if __name__ == "__main__":
    sys.exit(main())
