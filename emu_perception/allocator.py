"""Settings of the GNU C library's memory allocator; they do nothing with another library."""

from __future__ import annotations

import contextlib
import ctypes
import sys

# glibc, malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep what it frees instead of returning it to the system.

    A step on a CPU allocates the same large tensors as the step before. glibc maps each anew from
    the system, which then clears every page of it again: a fifth of the time of a training step of
    EfficientNet-Lite0. From here on the process stays as large as it ever was.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_TOP_PAD, 64 * _MIB)


def give_back_memory() -> None:
    """Return freed memory, which the library would keep, to the system.

    Compiling a network with OpenVINO takes up to 1.6 GB at 1920 x 1080.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
