"""Number of threads of inference on a CPU, and a pool for the work around the network."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

VARIABLE = "OMP_NUM_THREADS"
"""Environment variable that limits the number, as for most numerical libraries."""
Item = TypeVar("Item")


def thread_count() -> int:
    """`OMP_NUM_THREADS`, or the number of cores that this process may use."""
    given = os.environ.get(VARIABLE, "").split(",")[0]
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(function: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call a function on every item, on all threads; NumPy and OpenCV release the interpreter."""
    if thread_count() == 1:
        for item in items:
            function(item)
    else:
        list(_pool(thread_count()).map(function, items))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="maps")
