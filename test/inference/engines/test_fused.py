"""The GPU's kernels equal the reference: on a GPU, or by Triton's interpreter on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed")

CASES = [
    (12, 4, 6, 16, 24, 1.0),
    (40, 5, 7, 18, 31, 0.5),
    (19, 8, 8, 8, 8, 2.0),
    (1, 3, 2, 9, 5, 1),
]
"""Classes, raw height and width, height and width of the maps, temperature."""


def largest_differences(device: str) -> None:
    """Compare both kernels with the general form; run in a process of its own."""
    from emu_perception.inference.engines.activation import DepthActivation, SemanticActivation
    from emu_perception.inference.engines.fused import (
        FusedDepthActivation,
        FusedSemanticActivation,
        fused,
    )

    generator = torch.Generator().manual_seed(0)
    for classes, rows, columns, height, width, temperature in CASES:
        for channels_last in (False, True):
            raw = torch.randn(1, classes, rows, columns, generator=generator) * 5
            depth = torch.randn(1, 2, rows, columns, generator=generator) * 10
            if channels_last:
                raw = raw.contiguous(memory_format=torch.channels_last)
                depth = depth.contiguous(memory_format=torch.channels_last)[None]
            raw, depth = raw.to(device), depth.to(device)
            general = SemanticActivation(
                ("classes", "confidence", "entropy"), (height, width), temperature, classes
            )
            form = fused(general, raw)
            assert isinstance(form, FusedSemanticActivation)
            found, expected = form(raw), general(raw)
            assert found[0].dtype == torch.uint8
            assert (found[0] == expected[0]).float().mean() >= 0.999
            for a, b in zip(found[1:], expected[1:], strict=True):
                assert a.shape == b.shape == (height, width)
                assert (a - b).abs().max() <= 1e-4
            metres = DepthActivation(("mean", "variance"), (height, width), 1.5)
            form = fused(metres, depth)
            assert isinstance(form, FusedDepthActivation)
            for a, b in zip(form(depth), metres(depth), strict=True):
                assert a.shape == b.shape == (height, width)
                assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def in_a_process(device: str, **environment: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    code = f"import test_fused; test_fused.largest_differences({device!r})"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])},
        capture_output=True,
        text=True,
    )


def test_kernels_by_the_interpreter() -> None:
    done = in_a_process("cpu", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_kernels_on_a_gpu() -> None:
    done = in_a_process("cuda")
    assert done.returncode == 0, done.stderr


def test_what_the_kernels_leave_to_the_general_form() -> None:
    from emu_perception.inference.engines.activation import DepthActivation, SemanticActivation
    from emu_perception.inference.engines.fused import fused

    scores = SemanticActivation(("classes", "probabilities"), (8, 8), 1, 4)
    maps = SemanticActivation(("classes", "entropy"), (8, 8), 1, 4)
    metres = DepthActivation(("mean", "variance"), (8, 8), 1)
    assert fused(scores, torch.zeros(1, 4, 2, 2)) is scores
    assert fused(maps, torch.zeros(3, 1, 4, 2, 2)) is maps
    assert fused(metres, torch.zeros(3, 1, 2, 2, 2)) is metres
    assert fused(metres, torch.zeros(1, 1, 2, 2)) is metres
