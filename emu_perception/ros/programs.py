"""Start and end of the ROS programs."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import rclpy
from rclpy.executors import Executor, ExternalShutdownException


def report(event: Mapping[str, object]) -> None:
    """Print an event as a JSON line, for the process that started this one."""
    print(json.dumps(event), flush=True)


def spin_in_thread(executor: Executor) -> None:
    """Run an executor's callbacks in a thread of its own until the context is shut down."""

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    threading.Thread(target=spin, daemon=True).start()


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
    except Exception:
        if rclpy.ok():
            raise
        # A signal ended the context: what was being done with it cannot go on.
    finally:
        rclpy.try_shutdown()
    return 0
