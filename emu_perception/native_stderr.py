"""Lines that image decoders write to standard error themselves, past Python: left out."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MAX_BYTES = 1 << 16
"""Other lines are passed on up to this size."""
_DECODER = re.compile(
    rb"libpng|Corrupt JPEG|Premature end|Invalid |Unsupported marker|Inconsistent progression"
    rb"|Warning: |Bogus |TIFF|OpenCV TIFF|imread_|\[ ?(WARN|ERROR| INFO):\d"
)
_STDERR = 2


class _Capture:
    """File descriptor 2 turned to a file in memory while at least one decoder runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._saved = -1
        self._memory = -1

    def begin(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            if self._memory < 0:
                self._memory = os.memfd_create("stderr")
            self._saved = os.dup(_STDERR)
            os.dup2(self._memory, _STDERR)

    def end(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            os.dup2(self._saved, _STDERR)
            os.close(self._saved)
            length = os.lseek(self._memory, 0, os.SEEK_CUR)
            if not length:
                return
            text = os.pread(self._memory, min(length, MAX_BYTES), 0)
            os.ftruncate(self._memory, 0)
            os.lseek(self._memory, 0, os.SEEK_SET)
            # Such as another thread's log.
            kept = [line for line in text.splitlines(keepends=True) if not _DECODER.match(line)]
            os.write(_STDERR, b"".join(kept))


_capture = _Capture()


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Leave out the lines of libjpeg, libpng, libtiff and OpenCV: a stream of damaged images would
    fill a disk with them. What other threads write meanwhile is passed on afterwards.

    Without effect where the system has no files in memory or no standard error.
    """
    begun = False
    with suppress(OSError, AttributeError):
        _capture.begin()
        begun = True
    try:
        yield
    finally:
        if begun:
            with suppress(OSError):
                _capture.end()
