"""A thread with a one-slot mailbox: the newest item wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Processes items one after another, always the newest that was offered.

    Args:
        process: called in the worker's thread; must not raise.
        name: of the thread.
    """

    def __init__(self, process: Callable[[Item], None], name: str) -> None:
        self._process = process
        self._wake = threading.Condition()
        self._waiting: Item | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Put an item into the mailbox; True if it takes the place of one that was not begun."""
        with self._wake:
            replaced = self._waiting is not None
            self._waiting = item
            self._wake.notify()
            return replaced

    def stop(self) -> None:
        """Finish the item in hand, forget the one that waits, end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            if item is not None:
                self._process(item)
