"""Hand-worked values and bounds of the uncertainties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.uncertainty import MIN_VARIANCE, activate_depth, depth_maps, semantic_maps


def test_equation_10() -> None:
    means = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    variances = torch.tensor([0.5, 0.7]).view(2, 1, 1, 1)
    maps = depth_maps(means, variances)
    assert maps.mean.item() == 2.0
    assert maps.variance.item() == pytest.approx(1.6)
    assert maps.epistemic_variance.item() == pytest.approx(1.0)
    assert depth_maps(means, variances, variance_scale=2.0).variance.item() == pytest.approx(3.2)


def test_single_member_has_no_epistemic_part() -> None:
    maps = depth_maps(torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.25))
    assert maps.epistemic_variance is None
    assert torch.equal(maps.variance, torch.full((1, 2, 2), 0.25))
    assert semantic_maps(torch.randn(1, 1, 3, 2, 2)).mutual_information is None


def test_members_that_disagree() -> None:
    logits = torch.tensor([[[100.0, 0.0]], [[0.0, 100.0]]])[..., None, None]
    maps = semantic_maps(logits)
    assert maps.entropy.item() == pytest.approx(math.log(2))
    assert maps.mutual_information.item() == pytest.approx(math.log(2))
    assert maps.confidence.item() == pytest.approx(0.5)


def test_temperature_keeps_the_class_and_lowers_the_confidence() -> None:
    logits = torch.randn(1, 2, 5, 8, 8, generator=torch.Generator().manual_seed(0)) * 4
    cold, warm = semantic_maps(logits), semantic_maps(logits, temperature=2.0)
    assert torch.equal(cold.labels, warm.labels)
    assert (warm.confidence <= cold.confidence).all()
    assert (warm.entropy >= cold.entropy).all()


@given(
    members=st.integers(1, 4),
    classes=st.integers(1, 12),
    scale=st.floats(0, 60),
    seed=st.integers(0, 1000),
)
def test_bounds(members: int, classes: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = semantic_maps(torch.randn(members, 1, classes, 3, 4, generator=generator) * scale)
    assert torch.isfinite(maps.entropy).all()
    assert (maps.entropy >= 0).all() and (maps.entropy <= math.log(classes) + 1e-5).all()
    assert (maps.confidence <= 1 + 1e-6).all() and (maps.confidence >= 1 / classes - 1e-6).all()
    if maps.mutual_information is not None:
        assert (maps.mutual_information >= 0).all()
        assert (maps.mutual_information <= maps.entropy + 1e-5).all()


def test_depth_activation() -> None:
    raw = torch.tensor([[-1.0, 2.0], [-100.0, 0.0]]).view(1, 2, 1, 2)
    mean, variance = activate_depth(raw)
    assert mean.flatten().tolist() == [0.0, 2.0]
    assert variance.flatten().tolist() == pytest.approx([MIN_VARIANCE, math.log(2)])
