"""Fuzzing in one process: so many messages and files, each judged, within bounded memory."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator as Rng

from emu_perception.benchmark.measure import forget_peak, peak_resident_bytes, resident_bytes
from emu_perception.inference.engines.cache import VARIABLE
from emu_perception.inference.predictor import Predictor
from emu_perception.reliability.camera_info import camera_case, node_camera_case
from emu_perception.reliability.files import FileCases
from emu_perception.reliability.judge import Case, Failure, Findings
from emu_perception.reliability.messages import (
    FUZZED_PIXELS,
    compressed_case,
    image_case,
    node_case,
    valid_case,
)

MESSAGES = ("image", "compressed", "camera_info")
FILES = ("model", "configuration", "recording", "cache", "onnx")
OVER_DDS = ("node_image", "node_compressed", "node_camera_info")
TARGETS = MESSAGES + FILES + OVER_DDS
MEMORY_RATIO = 1.5
"""Peak memory over that of normal work, at most."""
_ADDRESS_SPACE = 8 << 30
"""Bytes that may be reserved beyond those at the start: an end for what is not bounded."""

Progress = Callable[[int], None]


@dataclass
class FuzzReport:
    """How a run ended."""

    seed: int
    cases: dict[str, dict[str, int]] = field(default_factory=dict)
    """`judged`, `answered` and `refused` by target; the others crashed or were broken off."""
    slowest: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the slowest case by target."""
    normal_bytes: int = 0
    """Peak resident memory of normal work: the largest picture predicted, a model loaded."""
    peak_bytes: int = 0
    """Peak resident memory of the run."""
    failures: list[Failure] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Cases that were judged."""
        return sum(counts["judged"] for counts in self.cases.values())

    def values(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "total": self.total}


def fuzz(
    messages: int,
    files: int,
    seed: int = 0,
    *,
    dds: int = 0,
    only: str = "",
    progress: Progress = lambda done: None,
) -> FuzzReport:
    """Run the cases of a seed: `messages` of Image, CompressedImage and CameraInfo in turn, and
    `files` of model files, configurations, recordings, cache entries and .onnx files in turn.

    Args:
        messages: number of messages.
        files: number of files.
        seed: of all cases; the same seed gives the same cases.
        dds: number of messages to a running node, which needs rclpy.
        only: TARGET for the cases of one target alone, TARGET:INDEX for a single one.
        progress: called with the number of cases so far.

    Raises:
        ValueError: `only` names no target.
    """
    target, _, single = only.partition(":")
    if target and target not in TARGETS:
        raise ValueError(f"there is no target '{target}', expected one of {', '.join(TARGETS)}")
    report = FuzzReport(seed)
    with tempfile.TemporaryDirectory(prefix="emu_fuzz_") as folder, _bounded():
        cases = FileCases(Path(folder))
        predictor = Predictor(cases.model, device="cpu", engine="pytorch")
        report.normal_bytes = _normal_work(predictor)
        if files and target in ("", "onnx"):
            forget_peak()
            _ = cases.deployed  # writes, compiles and runs a network
            report.normal_bytes = max(report.normal_bytes, peak_resident_bytes())
        findings = Findings()
        forget_peak()
        for done, (name, index) in enumerate(_order(messages, files), 1):
            if target and (name != target or (single and index != int(single))):
                continue
            findings.judge(name, index, _make(name, index, seed, predictor, cases))
            progress(done)
        if dds:
            _over_dds(dds, seed, predictor, findings, lambda n: progress(messages + files + n))
    report.peak_bytes = peak_resident_bytes()
    if report.peak_bytes > MEMORY_RATIO * report.normal_bytes:
        text = f"{report.peak_bytes >> 20} MB, normal work takes {report.normal_bytes >> 20} MB"
        findings.failures.append(Failure("all", "memory", text))
    report.failures, report.slowest = findings.failures, findings.slowest
    report.cases = {
        name: {
            "judged": findings.judged[name],
            "answered": findings.answered[name],
            "refused": findings.refused[name],
        }
        for name in TARGETS
        if findings.judged[name]
    }
    return report


def _over_dds(
    number: int, seed: int, predictor: Predictor, findings: Findings, progress: Progress
) -> None:
    from emu_perception.ros.node_under_test import NodeUnderTest

    each = -(-number // len(OVER_DDS))
    for place, name in enumerate(OVER_DDS):
        compressed, with_camera = name == "node_compressed", name == "node_camera_info"
        transport = "compressed" if compressed else "raw"
        path = predictor.path
        with NodeUnderTest(path, transport, FUZZED_PIXELS, camera_info=with_camera) as node:
            # A node that answers nothing would refuse everything.
            valid = (
                node_camera_case(np.random.default_rng(0), predictor, node.send_with_camera, True)
                if with_camera
                else valid_case(predictor, node.send, compressed)
            )
            findings.judge(name, "before", valid)
            for index in range(each):
                rng = np.random.default_rng([seed, TARGETS.index(name), index])
                if with_camera:
                    case = node_camera_case(rng, predictor, node.send_with_camera)
                else:
                    case = node_case(rng, index, predictor, node.send, compressed)
                findings.judge(name, index, case)
                progress(place * each + index + 1)
            findings.judge(name, "after", valid)


def _order(messages: int, files: int) -> Iterator[tuple[str, int]]:
    """Targets in turn, each with its own count from 0."""
    for kinds, number in ((MESSAGES, messages), (FILES, files)):
        for each in range(number):
            yield kinds[each % len(kinds)], each // len(kinds)


def _make(name: str, index: int, seed: int, predictor: Predictor, cases: FileCases) -> Case:
    rng: Rng = np.random.default_rng([seed, TARGETS.index(name), index])
    makers: dict[str, Callable[[Rng, int], Case]] = {
        "image": lambda rng, index: image_case(rng, index, predictor),
        "compressed": lambda rng, index: compressed_case(rng, index, predictor),
        "camera_info": lambda rng, index: camera_case(rng, index, predictor),
        "model": cases.model_case,
        "configuration": cases.configuration_case,
        "recording": cases.recording_case,
        "cache": cases.cache_case,
        "onnx": cases.onnx_case,
    }
    return makers[name](rng, index)


def _normal_work(predictor: Predictor) -> int:
    """Peak bytes of predicting the largest picture that the messages may hold."""
    forget_peak()
    side = int(FUZZED_PIXELS**0.5)
    predictor.predict(np.zeros((side, side, 3), np.uint8))
    return max(peak_resident_bytes(), resident_bytes())


@contextmanager
def _bounded() -> Iterator[None]:
    """A cache of its own, and an end to the memory that can be reserved."""
    variable = os.environ.get(VARIABLE)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _ADDRESS_SPACE
    if limits[1] == resource.RLIM_INFINITY or most < limits[1]:
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        if variable is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = variable
