"""Executor of the node: light callbacks in one thread, lifecycle transitions in another."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.task import Future


class TransitionGroup(ReentrantCallbackGroup):
    """Callbacks that may take seconds; `NodeExecutor` runs each in a thread of its own."""


class NodeExecutor(SingleThreadedExecutor):
    """Runs everything in the spinning thread but the callbacks of a `TransitionGroup`.

    Images have to be taken within a frame's time while a network computes. Handing
    each to a thread pool, as rclpy's MultiThreadedExecutor does, costs twice the time per image
    and loses frames on two busy cores. Other executors work too.
    """

    def __init__(self) -> None:
        super().__init__()
        # The longest transition, a request for the state meanwhile, and one to spare.
        self._pool = ThreadPoolExecutor(3, thread_name_prefix="transition")
        self._running: list[Future] = []

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and run it, or hand it to a thread."""
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (TimeoutException, ShutdownException):
            return
        except rclpy_implementation.InvalidHandle:
            return  # a transition destroyed a publisher between listing and waiting for it
        if isinstance(getattr(entity, "callback_group", None), TransitionGroup):
            self._pool.submit(handler)
            self._running.append(handler)
        else:
            handler()
            handler.result()
        for task in [task for task in self._running if task.done()]:
            self._running.remove(task)
            task.result()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop, after the transitions that run; False if one still runs after `timeout_sec`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = math.inf if timeout_sec is None else time.monotonic() + timeout_sec
        while any(not task.done() for task in self._running) and time.monotonic() < deadline:
            time.sleep(0.01)
        ended = all(task.done() for task in self._running)
        return super().shutdown(timeout_sec if ended else 0.0) and ended
