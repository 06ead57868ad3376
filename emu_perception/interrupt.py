"""Long calls into native code that Ctrl-C can leave."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")

POLL_SECONDS = 0.05
INTERRUPTED = 130
"""Exit status after SIGINT: 128 + 2."""
_running: set[threading.Thread] = set()


def interruptible(function: Callable[[], Result]) -> Result:
    """Call a function that spends seconds in native code, such as a compiler.

    Python handles a signal only after native code returns. In the main thread the function
    therefore runs in a thread of its own, and an exception of a signal handler, such as
    KeyboardInterrupt, leaves this call at once. The abandoned thread cannot be stopped; a process
    that ends meanwhile does not wait for it. In other threads, which handle no signals, the
    function is called directly.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            _running.discard(thread)

    thread = threading.Thread(target=run, name="interruptible", daemon=True)
    _running.add(thread)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
    if errors:
        raise errors[0]
    return results[0]


@atexit.register
def _leave_at_once() -> None:
    """Native code that still runs would crash while the interpreter is taken down beneath it."""
    if _running:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(INTERRUPTED)
