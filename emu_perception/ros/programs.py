"""Start and end of the ROS programs."""

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
    """Run a program in a ROS context until it is done or receives a signal.

    Args:
        body: the program; returns its exit status, None for 0.
        expected: errors of users: printed in one line, exit status 1.
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
