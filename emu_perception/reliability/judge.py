"""Runs a case and judges its end: a good answer, a refusal in a line, or a failure."""

from __future__ import annotations

import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

LONGEST_LINE = 300
"""Characters of a refusal."""
MAX_LINES = 40
"""Lines of a refusal that lists problems one by one."""
_LONGEST_TRACE = 3000
_PATIENCE = 60.0
"""Seconds of a wall clock after which a case is broken off."""


class _BrokenOff(BaseException):
    """Raised by the alarm; no handler of the code under test catches it."""


@dataclass(frozen=True)
class Case:
    """One input, and what may become of it."""

    run: Callable[[], Any]
    """Feeds the input to the package; its result is the package's answer."""
    check: Callable[[Any], str | None] = lambda answer: None
    """Returns the problem of an answer; None if it is right."""
    errors: tuple[type[Exception], ...] = (ValueError,)
    """How the package may refuse the input."""
    seconds: float = 1.0
    """CPU time that the input may cost."""
    sound: bool = False
    """Whether nothing is wrong with the input: a refusal is a failure."""
    lines: int = 1
    """Lines that a refusal may have."""


@dataclass(frozen=True)
class Failure:
    """A case that did not end as it must."""

    case: str
    """TARGET:INDEX, which reproduces it with the same seed."""
    kind: str
    """crash, hang, wrong answer, message or memory."""
    text: str


@dataclass
class Findings:
    """Counts by target, and the failures."""

    judged: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the slowest case by target."""

    def judge(self, target: str, index: int | str, case: Case) -> None:
        """Run a case and count how it ended."""
        name = f"{target}:{index}"
        self.judged[target] += 1
        begin = time.process_time()
        try:
            with _alarm():
                answer = case.run()
        except case.errors as error:
            self._time(target, name, begin, case.seconds)
            self.refused[target] += 1
            wrong = _unreadable(str(error), case.lines)
            if case.sound:
                self._fail(name, "wrong answer", f"a sound input was refused: {error}")
            elif wrong:
                self._fail(name, "message", wrong)
            return
        except _BrokenOff:
            self._fail(name, "hang", f"it was broken off after {_PATIENCE:.0f} s")
            return
        except Exception:
            self._time(target, name, begin, case.seconds)
            self._fail(name, "crash", traceback.format_exc(limit=-6)[-_LONGEST_TRACE:])
            return
        self._time(target, name, begin, case.seconds)
        self.answered[target] += 1
        try:
            wrong = case.check(answer)
        except Exception:
            wrong = traceback.format_exc(limit=-3)
        if wrong:
            self._fail(name, "wrong answer", wrong)

    def _time(self, target: str, name: str, begin: float, limit: float) -> None:
        seconds = time.process_time() - begin
        self.slowest[target] = max(self.slowest.get(target, 0.0), seconds)
        if seconds > limit:
            self._fail(name, "hang", f"it took {seconds:.1f} s of CPU time, at most {limit:g}")

    def _fail(self, name: str, kind: str, text: str) -> None:
        self.failures.append(Failure(name, kind, text))


def _unreadable(text: str, lines: int) -> str | None:
    found = text.splitlines()
    if not text.strip():
        return "the refusal has no text"
    if len(found) > lines:
        return f"the refusal has {len(found)} lines, expected {lines} at most: {text[:500]}"
    longest = max(found, key=len)
    if len(longest) > LONGEST_LINE:
        return f"the refusal has a line of {len(longest)} characters: {longest[:500]}"
    if any(ord(c) < 32 and c not in "\n\t" for c in text):
        return f"the refusal holds control characters: {text[:300]!r}"
    return None


@contextmanager
def _alarm() -> Iterator[None]:
    """Break off what never ends, where this is the main thread."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _BrokenOff

    try:
        before = signal.signal(signal.SIGALRM, stop)
    except ValueError:  # not the main thread
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
