"""Units of a network's depth channel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.networks.depth_unit import DEPTH_UNITS, FARTHEST, depth_unit


@pytest.mark.parametrize("name", DEPTH_UNITS)
@given(metres=st.floats(0.2, 90.0))
def test_metres_come_back(name: str, metres: float) -> None:
    unit = depth_unit(name)
    value = unit.encode(torch.tensor(metres, dtype=torch.float64))
    assert unit.decode(value).item() == pytest.approx(metres, rel=1e-4)


@pytest.mark.parametrize("name", DEPTH_UNITS)
@pytest.mark.parametrize("value", [-1e4, -1.0, 0.0, 1e4])
def test_any_value_decodes_to_a_finite_depth(name: str, value: float) -> None:
    depth = depth_unit(name).decode(torch.tensor(value)).item()
    assert math.isfinite(depth)
    if name != "metres":
        assert 0 <= depth <= FARTHEST * 1.001


def test_a_logarithm_counts_ratios() -> None:
    unit = depth_unit("logarithm")
    near, far = unit.encode(torch.tensor([2.0, 40.0])), unit.encode(torch.tensor([1.0, 20.0]))
    torch.testing.assert_close(near - far, torch.full((2,), math.log(2.0)))


def test_an_unknown_unit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown depth unit 'feet'; known: metres, logarithm"):
        depth_unit("feet")
