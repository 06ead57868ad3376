"""Problems of a recording: names, counts and a few examples."""

from __future__ import annotations

import threading
from typing import Any

from emu_perception.text import one_line

EXAMPLES = 5
IMPERFECT = 3
"""Exit status of programs where something could not be read or scored, or was out of order."""


class Problems:
    """Counts by kind; threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, Any]] = {}

    def count(self, kind: str, example: str) -> None:
        """One more of a kind; the first examples are kept."""
        with self._lock:
            found = self._found.setdefault(kind, {"count": 0, "examples": []})
            found["count"] += 1
            if len(found["examples"]) < EXAMPLES:
                found["examples"].append(one_line(example))

    def __bool__(self) -> bool:
        return bool(self._found)

    def values(self) -> dict[str, dict[str, Any]]:
        """`count` and `examples` by kind."""
        with self._lock:
            return {kind: dict(found) for kind, found in self._found.items()}
