"""The compiled loops compute what NumPy and OpenCV do."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.inference import kernels
from emu_perception.inference.postprocessing import MapSettings, compute_maps
from emu_perception.inference.resampling import antialiased

WANTED = frozenset({"labels", "confidence", "semantic_entropy", "depth", "depth_variance"})

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="no C compiler built the kernels")


def both(function):  # type: ignore[no-untyped-def]
    """A function's result with the kernels, and without."""
    compiled = function()
    kernels.AVAILABLE = False
    try:
        return compiled, function()
    finally:
        kernels.AVAILABLE = True


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    classes=st.sampled_from([1, 2, 11, 19, 255]),
    raw_size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 300)),
    spread=st.sampled_from([0.0, 0.1, 4.0, 100.0]),
    wanted=st.sets(st.sampled_from(sorted(WANTED)), min_size=1),
    options=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([1.0, 0.5, 3.0]),
            "min_confidence": st.sampled_from([0.0, 0.6]),
            "masks_depth": st.booleans(),
            "without_depth": st.sampled_from([(), (0,), (0, 1)]),
            "focal_std": st.sampled_from([0.0, 0.2]),
            "focal_ratio": st.sampled_from([1.0, 2.5]),
        }
    ),
)
def test_maps(
    seed: int,
    classes: int,
    raw_size: tuple[int, int],
    size: tuple[int, int],
    spread: float,
    wanted: set[str],
    options: dict,
) -> None:
    draw = np.random.default_rng(seed)
    raw = {
        "semantic": draw.normal(0, spread, (1, classes, *raw_size)).astype(np.float32),
        "depth": draw.normal(3, spread, (1, 2, *raw_size)).astype(np.float32),
    }
    how = MapSettings(classes=classes, depth_range=(0.5, 20.0), variance_scale=1.3, **options)
    compiled, plain = both(lambda: compute_maps(raw, size, frozenset(wanted), how))
    assert compiled.keys() == plain.keys() == wanted
    # Where two classes, or a value and its limit, are equal up to rounding, both answers are right.
    allowed = 0.02 if size[0] * size[1] > 200 else 0.2
    for name, expected in plain.items():
        found = compiled[name]
        assert found.shape == expected.shape and found.dtype == expected.dtype
        same = np.isclose(found, expected, rtol=2e-5, atol=2e-5, equal_nan=True)
        assert (~same).mean() <= allowed, name


def test_softmax_to_the_last_digits() -> None:
    raw = np.random.default_rng(0).normal(0, 4, (1, 19, 30, 40)).astype(np.float32)
    wanted = frozenset({"labels", "confidence", "semantic_entropy"})
    compiled, plain = both(
        lambda: compute_maps({"semantic": raw}, (160, 201), wanted, MapSettings(classes=19))
    )
    assert (compiled["labels"] == plain["labels"]).mean() > 0.9999
    assert np.abs(compiled["confidence"] - plain["confidence"]).max() < 5e-6
    assert np.abs(compiled["semantic_entropy"] - plain["semantic_entropy"]).max() < 1e-5


@settings(deadline=None, max_examples=60)
@given(
    before=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    after=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_images(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*before, 3), np.uint8)
    compiled, plain = both(lambda: antialiased(image, after))
    assert np.abs(compiled - plain).max() < 0.01  # in 0–255


def test_a_view_of_an_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    compiled, plain = both(lambda: antialiased(image[::-1, ::2], (20, 25)))
    assert np.abs(compiled - plain).max() < 0.01


def test_they_can_be_turned_off() -> None:
    code = "from emu_perception.inference import kernels; print(kernels.AVAILABLE)"
    for value, expected in (("0", "False"), ("", "True")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, kernels.VARIABLE: value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
