"""The rest of the robot in a soak test: `python -m emu_perception.ros.soak_robot --seed 0`.

Every few seconds it subscribes to other outputs, changes a parameter, or sends the node through
lifecycle transitions. It reports on standard output, one JSON object a line, each status of the
node (`"event": "status"`) and each action (`"action"`).
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, PointCloud2

from emu_perception.ros.executor import NodeExecutor
from emu_perception.ros.programs import report, run_program, spin_in_thread

OUTPUTS: dict[str, type] = {
    "semantic/labels": Image,
    "semantic/uncertainty": Image,
    "depth/image": Image,
    "depth/uncertainty": Image,
    "overlay": Image,
    "depth/color": Image,
    "points": PointCloud2,
}
PARAMETERS: dict[str, tuple[Any, ...]] = {
    "output_scale": (1.0, 0.5, 0.25),
    "min_confidence": (0.0, 0.3),
    "max_depth_std": (0.0, 10.0),
    "overlay_alpha": (0.2, 0.5, 0.8),
    "monitor_rate": (0.0, 2.0),
    "depth_colormap": ("turbo_r", "magma"),
    "image_transport": ("no such transport",),  # refused
}
SERVICE_SECONDS = 300.0
"""For an answer; a configure compiles."""


class SoakRobot(Node):
    """Subscriber, operator and lifecycle manager."""

    def __init__(self, node: str, seed: int) -> None:
        super().__init__("soak_robot")
        self._random = random.Random(seed)
        self._listening: dict[str, Subscription] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._read, 10)
        self._state_client: Any = self.create_client(ChangeState, f"{node}/change_state")
        self._parameter_client: Any = self.create_client(SetParameters, f"{node}/set_parameters")

    def act(self) -> None:
        """One action."""
        actions: list[tuple[Callable[[], object], int]] = [
            (self._change_subscriptions, 6),
            (self._set_parameter, 3),
            (self._restart, 2),
            (self._reload, 1),
        ]
        action = self._random.choices([a for a, _ in actions], [weight for _, weight in actions])[0]
        report({"event": "action", "action": action.__name__.strip("_"), "what": action()})

    def subscribe(self, topics: Sequence[str]) -> list[str]:
        """Subscribe to these outputs and to no others."""
        for topic in set(self._listening) - set(topics):
            self.destroy_subscription(self._listening.pop(topic))
        for topic in set(topics) - set(self._listening):
            qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
            self._listening[topic] = self.create_subscription(
                OUTPUTS[topic], topic, lambda data: None, qos, raw=True
            )
        return sorted(topics)

    def _change_subscriptions(self) -> list[str]:
        return self.subscribe(self._random.sample(list(OUTPUTS), self._random.randint(0, 4)))

    def _set_parameter(self) -> str:
        name = self._random.choice(list(PARAMETERS))
        value = self._random.choice(PARAMETERS[name])
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        (result,) = self._call(self._parameter_client, request).results
        return f"{name} = {value}: {'taken' if result.successful else 'refused'}"

    def _restart(self) -> list[str]:
        return self.transitions("deactivate", "activate")

    def _reload(self) -> list[str]:
        return self.transitions("deactivate", "cleanup", "configure", "activate")

    def transitions(self, *names: str) -> list[str]:
        """Request lifecycle transitions; returns "NAME: done" or "NAME: failed" for each."""
        found = []
        for name in names:
            number = getattr(Transition, f"TRANSITION_{name.upper()}")
            answer = self._call(
                self._state_client, ChangeState.Request(transition=Transition(id=number))
            )
            found.append(f"{name}: {'done' if answer.success else 'failed'}")
        return found

    def _call(self, client: Any, request: Any) -> Any:
        if not client.wait_for_service(SERVICE_SECONDS):
            raise TimeoutError(f"nobody serves {client.srv_name}")
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(SERVICE_SECONDS):
            raise TimeoutError(f"{client.srv_name} did not answer in {SERVICE_SECONDS:g} s")
        return future.result()

    def _read(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            report({"event": "status", "message": status.message, "values": values})


def main(arguments: Sequence[str] | None = None) -> int:
    """Act until SIGINT or SIGTERM, or for `--seconds`; then only listen."""
    parser = argparse.ArgumentParser(prog="soak_robot", description=__doc__)
    parser.add_argument("--node", default="emu_perception", help="name of the node")
    parser.add_argument("--seed", type=int, default=0, help="of the actions")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between actions")
    parser.add_argument("--seconds", type=float, required=True, help="of actions")
    options = parser.parse_args(arguments)

    def run() -> None:
        robot = SoakRobot(options.node, options.seed)

        executor = NodeExecutor()  # others stumble over subscriptions that end meanwhile
        executor.add_node(robot)

        spin_in_thread(executor)
        robot.subscribe(list(OUTPUTS)[:4])
        end = time.monotonic() + options.seconds
        while time.monotonic() < end and rclpy.ok():
            time.sleep(options.every)
            robot.act()
        report({"event": "action", "action": "end", "what": robot.subscribe(list(OUTPUTS)[:4])})
        while rclpy.ok():
            time.sleep(0.1)

    return run_program(run, TimeoutError)


if __name__ == "__main__":
    sys.exit(main())
