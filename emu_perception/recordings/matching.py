"""Match messages of several topics by stamp, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

WAITING = 32
"""Stamps that may wait for something missing: the oldest is given up above it."""


@dataclass
class Matched:
    """Values of all sources with one stamp."""

    stamp_ns: int
    number: int
    """Number of the stamp, in the order of first arrival."""
    parts: dict[str, Any] = field(default_factory=dict)
    """Values by the name of their source."""


class StampMatcher:
    """Collects parts by stamp and gives them in order as soon as nothing more can come.

    Each source gives its parts in order. So a stamp is finished when each expected source has given
    a part for it or for a later one: what was lost on the way holds nothing up.

    Args:
        expected: names of the sources that may still give parts.
        waiting: how many unfinished stamps there may be.
    """

    def __init__(self, expected: Callable[[], Collection[str]], waiting: int = WAITING) -> None:
        self._expected = expected
        self._waiting = waiting
        self._open: dict[int, Matched] = {}
        self._last: dict[str, Matched] = {}
        self._count = 0

    def add(self, source: str, stamp_ns: int, part: Any) -> Iterator[Matched]:
        """Take a part; gives what it finished.

        A source that repeats a stamp (a recording that loops) begins a new one.
        """
        matched = self._open.get(stamp_ns)
        if matched is not None and source in matched.parts:
            yield from self._give_up_to(matched.number)
            matched = None
        if matched is None:
            matched = self._open[stamp_ns] = Matched(stamp_ns, self._count)
            self._count += 1
        matched.parts[source] = part
        self._last[source] = matched
        if len(self._open) > self._waiting:
            yield from self._give_up_to(next(iter(self._open.values())).number)
        expected = self._expected()
        yield from self._give(lambda each: self._is_finished(each, expected))

    def finish(self) -> Iterator[Matched]:
        """All that is left, when nothing more comes."""
        yield from self._give(lambda each: True)

    def has(self, stamp_ns: int, sources: Collection[str]) -> bool:
        """Whether each of the sources has given its part for a stamp that is not finished."""
        matched = self._open.get(stamp_ns)
        return matched is not None and all(source in matched.parts for source in sources)

    def _give_up_to(self, number: int) -> Iterator[Matched]:
        yield from self._give(lambda each: each.number <= number)

    def _is_finished(self, matched: Matched, expected: Collection[str]) -> bool:
        return all(
            source in matched.parts or self._has_passed(source, matched) for source in expected
        )

    def _has_passed(self, source: str, matched: Matched) -> bool:
        # By the stamp alone a recording that loops would have passed everything before it began
        # anew; by the number alone, a source that lags what the others have lost.
        last = self._last.get(source)
        if last is None:
            return False
        return last.number > matched.number and last.stamp_ns > matched.stamp_ns

    def _give(self, ready: Callable[[Matched], bool]) -> Iterator[Matched]:
        while self._open:
            stamp_ns, oldest = next(iter(self._open.items()))
            if not ready(oldest):
                return
            del self._open[stamp_ns]
            yield oldest
