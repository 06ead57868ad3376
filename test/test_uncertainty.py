"""Hand-worked values and bounds of the uncertainties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.inference.engines.activation import DepthActivation, SemanticActivation
from emu_perception.prediction import MIN_VARIANCE
from emu_perception.training.targets import pool_members
from emu_perception.uncertainty import activate_depth, depth_maps, semantic_maps


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


def test_members_are_pooled_before_the_temperature() -> None:
    # Softmaxes (4/5, 1/5) and (2/3, 1/3) have the mean (11/15, 4/15); T = 2 takes square roots.
    logits = torch.log(torch.tensor([[[4.0, 1.0]], [[2.0, 1.0]]]))[..., None, None]
    roots = math.sqrt(11), math.sqrt(4)
    maps = semantic_maps(logits, temperature=2.0)
    assert maps.confidence.item() == pytest.approx(roots[0] / sum(roots))
    uncalibrated = semantic_maps(logits)
    assert maps.mutual_information.item() == pytest.approx(uncalibrated.mutual_information.item())


def raw_maps(members: int, channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(members, 1, channels, 5, 7, generator=generator)


def full_size(raw: torch.Tensor) -> torch.Tensor:
    """`(M, 1, C, 5, 7)` to `(M, 1, C, 20, 28)`, without the project's own resizing."""
    resized = torch.nn.functional.interpolate(raw.flatten(0, 1), (20, 28), mode="bilinear")
    return resized.unflatten(0, raw.shape[:2])


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_activations_equal_the_reference(members: int, temperature: float) -> None:
    split = members == 1
    raw = raw_maps(members, 4 + split, 0)
    full = full_size(raw)
    predicted = torch.nn.functional.softplus(full[0, :, 4]) if split else None
    expected = semantic_maps(full[:, :, :4], temperature, predicted)
    wanted = ("classes", "confidence", "entropy", "mutual_information", "probabilities")
    activation = SemanticActivation(wanted, (20, 28), temperature, classes=4)
    found = dict(zip(wanted, activation(raw), strict=True))
    assert torch.equal(found["classes"].long(), expected.labels[0])
    for name in wanted[1:]:
        value = getattr(expected, name)[0]
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)

    raw = raw_maps(members, 2 + split, 1)
    full = full_size(raw)
    predicted = torch.nn.functional.softplus(full[0, :, 2]) if split else None
    expected = depth_maps(*activate_depth(full[:, :, :2], dim=2), 2.5, predicted)
    wanted = ("mean", "variance", "epistemic_variance")
    found = dict(zip(wanted, DepthActivation(wanted, (20, 28), 2.5)(raw), strict=True))
    for name in wanted:
        torch.testing.assert_close(found[name], getattr(expected, name)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("members", [1, 3])
def test_training_targets_equal_the_reference(members: int) -> None:
    logits, depth = raw_maps(members, 4, 2), raw_maps(members, 2, 3)
    found = pool_members({"semantic": logits, "depth": depth}, (20, 28))
    semantic = semantic_maps(full_size(logits))
    moments = depth_maps(*activate_depth(full_size(depth), dim=2))
    pairs = [
        (found.probabilities, semantic.probabilities),
        (found.mean, moments.mean),
        (found.variance, moments.variance),
    ]
    if members > 1:
        pairs += [
            (found.mutual_information, semantic.mutual_information),
            (found.epistemic_variance, moments.epistemic_variance),
        ]
    for value, expected in pairs:
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
