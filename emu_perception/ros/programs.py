"""What the programs of this room share: how they begin and end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException


def run_program(
    body: Callable[[], int | None],
    *expected: type[Exception],
    ros_arguments: Sequence[str] = (),
) -> int:
    """Run a program in a ROS context, until it is done or asked to end.

    Args:
        body: the program; returns its exit status, None for 0.
        expected: errors that are for people: told in a line, exit status 1.
        ros_arguments: such as remappings; none are taken from the process's own command line.
    """
    rclpy.init(args=list(ros_arguments))
    try:
        with suppress(KeyboardInterrupt, ExternalShutdownException):
            return body() or 0
    except expected as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0
