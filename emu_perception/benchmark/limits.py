"""A figure and its limit, for benchmarks and soak tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limit:
    """A figure and its limit."""

    name: str
    limit: float
    figure: float | None
    """None: not measured."""
    reason: str = ""
    """Why it is not measured or not judged; empty where it is."""
    at_most: bool = False
    """The figure may not be above the limit; else not below."""
    unit: str = ""

    @property
    def holds(self) -> bool | None:
        """None where it is not measured or not judged."""
        if self.figure is None or self.reason:
            return None
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    @property
    def outcome(self) -> str:
        """In words."""
        words = {True: "holds", False: "FAILS", None: f"skipped: {self.reason}"}
        return words[self.holds]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "holds": self.holds}


def failed(limits: Iterable[Limit]) -> bool:
    """Whether one of them was judged and does not hold."""
    return any(limit.holds is False for limit in limits)
