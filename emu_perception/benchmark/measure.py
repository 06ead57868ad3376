"""Times of functions that take turns, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.inference.threads import thread_count


@dataclass(frozen=True)
class Times:
    """Times of one function, call by call."""

    wall: tuple[float, ...]
    """Milliseconds from the call until its result is there."""
    processor: tuple[float, ...]
    """Milliseconds of the CPU in all threads."""

    def summary(self) -> dict[str, float]:
        """Milliseconds: `median`, `p5`, `p95`, `minimum`; `processor_median`; `per_second`."""
        p5, median, p95 = np.percentile(self.wall, (5, 50, 95))
        return {
            "median": float(median),
            "p5": float(p5),
            "p95": float(p95),
            "minimum": min(self.wall),
            "processor_median": float(np.median(self.processor)),
            "per_second": 1e3 / float(median),
        }


def take_turns(
    functions: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warm_up: int,
    device: str,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Times]:
    """Call every function once a round.

    Args:
        functions: by name.
        rounds: that are measured.
        warm_up: rounds before.
        device: `cuda` waits for the GPU before and after each call.
        progress: called with what begins.
    """
    wall: dict[str, list[float]] = {name: [] for name in functions}
    processor: dict[str, list[float]] = {name: [] for name in functions}
    for index in range(warm_up + rounds):
        progress(f"round {index + 1} of {warm_up + rounds}")
        for name, function in functions.items():
            synchronize(device)
            before, before_processor = time.perf_counter(), time.process_time()
            function()
            synchronize(device)
            after, after_processor = time.perf_counter(), time.process_time()
            if index >= warm_up:
                wall[name].append((after - before) * 1e3)
                processor[name].append((after_processor - before_processor) * 1e3)
    return {name: Times(tuple(wall[name]), tuple(processor[name])) for name in functions}


def synchronize(device: str) -> None:
    """Wait until a GPU has done all it was given; nothing on a CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def ratio(slower: Times, faster: Times) -> float:
    """Median over the rounds of one function's time over another's."""
    return float(np.median(np.array(slower.wall) / np.array(faster.wall)))


def peak_resident_bytes() -> int:
    """The highest resident memory of this process since it began, or since `forget_peak`."""
    # Not getrusage: a child's figure there begins at its parent's.
    return _status_bytes("VmHWM")


def forget_peak() -> None:
    """From here on `peak_resident_bytes` counts anew, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident_bytes(process: int | str = "self") -> int:
    """Resident memory of a process."""
    return _status_bytes("VmRSS", process)


def _status_bytes(field: str, process: int | str = "self") -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def describe_machine(device: str) -> dict[str, Any]:
    """Describe the machine: names, threads and versions."""
    import importlib.metadata

    versions = {}
    for package in ("torch", "openvino", "transformers", "timm"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": _gpu_name(device) if device.startswith("cuda") else _processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": thread_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _gpu_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(device))


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
