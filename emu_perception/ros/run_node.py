"""The program `emu_node`: SIGINT and SIGTERM end it at any time, also while it imports or loads.

Little is imported at the top: the signals are handled from the beginning.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

END_SECONDS = 1.5
"""After a signal: whatever still runs then is left behind."""
TRANSITION_SECONDS = 0.5
"""For a lifecycle transition to end after a signal. One that loads a model takes much longer."""


class Ending:
    """Ends the process with status 0 after SIGINT or SIGTERM.

    At once by default, without running any more Python code: nothing is lost before the node
    spins. Once `gracefully` was set, rclpy ends the spinning, and the process has `END_SECONDS`.
    """

    def __init__(self) -> None:
        self.gracefully = False
        self._begun = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.gracefully:
            end_now()
        if not self._begun:
            self._begun = True
            timer = threading.Timer(END_SECONDS, end_now)
            timer.daemon = True
            timer.start()


def end_now() -> None:
    """End the process with status 0, without waiting for its threads.

    Native code of a thread that loads a model must not run on while the interpreter is finalized.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def main(args: list[str] | None = None) -> int:
    """Entry point of `emu_node`; returns the process's exit status."""
    ending = Ending()

    from emu_perception.ros.usage import is_asked_for_help, node_usage

    if is_asked_for_help(sys.argv[1:] if args is None else args):
        print(node_usage())
        return 0

    import rclpy
    from rclpy.executors import ExternalShutdownException

    from emu_perception.allocator import keep_large_blocks
    from emu_perception.plugins import TASK_GROUP, load_plugins

    load_plugins(TASK_GROUP)
    from emu_perception.ros.executor import NodeExecutor
    from emu_perception.ros.node import EmuNode
    from emu_perception.ros.parameters import ParameterError

    keep_large_blocks()
    try:
        rclpy.init(args=args)
        node = EmuNode()
    except (ParameterError, RuntimeError) as error:
        print(f"emu_node cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = NodeExecutor()
    executor.add_node(node)
    ending.gracefully = True
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    rclpy.try_shutdown()
    if node.autostart is not None:
        node.autostart.join(TRANSITION_SECONDS)
    loads = node.autostart is not None and node.autostart.is_alive()
    if executor.shutdown(TRANSITION_SECONDS) and not loads:
        node.destroy_node()
        if node.is_computing:
            end_now()
        return 0
    # The model still loads. Only what others see is taken away: the participant and its shared
    # memory, which would stay in /dev/shm.
    threading.excepthook = lambda error: None  # the transition finds its node gone
    node.abandon()
    rclpy.get_default_context().destroy()
    end_now()
    return 0


if __name__ == "__main__":
    sys.exit(main())
