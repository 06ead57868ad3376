"""OpenVINO's core and settings, which all OpenVINO engines share."""

from __future__ import annotations

import functools
from typing import Any

import openvino

from emu_perception.inference.threads import thread_count


@functools.cache
def core() -> openvino.Core:
    """The process's one core, which it keeps.

    The CPU plugin of every core replaces the stack of the process's signal handlers and puts back
    the one before it. Cores that end in another order than they began leave the main thread without
    one: the next signal that has a handler, such as Ctrl-C, ends the process.
    """
    return openvino.Core()


def compile_settings(precision: str) -> dict[str, Any]:
    """OpenVINO's settings for one image at a time in `fp32` or `bf16`."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": thread_count(),
    }
