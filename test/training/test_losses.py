"""Losses against values worked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.training import losses


def grid(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1)


ALL = torch.ones(1, 1, 1, dtype=torch.bool)


def test_gaussian_likelihood_by_hand() -> None:
    loss = losses.gaussian_nll(grid(1.0), grid(2.0), grid(3.0), ALL)
    assert loss.item() == pytest.approx(1.346574, abs=1e-6)


def test_gaussian_likelihood_clamps_the_variance_and_works_in_float32() -> None:
    loss = losses.gaussian_nll(grid(1.0).half(), grid(0.0).half(), grid(1.0), ALL)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.5 * math.log(1e-6), rel=1e-6)


def test_kl_by_hand_and_in_the_right_direction() -> None:
    teacher = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    logits = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1) + 7.0
    assert losses.kl_divergence(teacher, logits).item() == pytest.approx(0.143841, abs=1e-6)
    reverse = losses.kl_divergence(logits.softmax(1), teacher.log()).item()
    assert reverse == pytest.approx(0.130812, abs=1e-6)


def test_distances_of_normals_and_edges_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).T.view(1, 3, 1, 2)
    second = torch.tensor([[0.6, 0.8, 0.0], [0.0, -1.0, 0.0]]).T.view(1, 3, 1, 2)
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    assert losses.cosine_distance(first, second, valid).item() == pytest.approx((0.4 + 2) / 2)
    assert losses.binary_divergence(grid(0.3), grid(0.3), ALL).item() == pytest.approx(0, abs=1e-7)
    found = losses.binary_divergence(grid(0.5), grid(0.25), ALL).item()
    assert found == pytest.approx(0.143841, abs=1e-6)
    assert losses.binary_divergence(grid(1.0), grid(0.25), ALL).item() == pytest.approx(
        math.log(4), abs=1e-6
    )


def test_kl_is_a_mean_over_pixels_and_takes_certain_teachers() -> None:
    teacher = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).T.view(1, 2, 1, 2)
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2).requires_grad_()
    loss = losses.kl_divergence(teacher, logits)
    assert loss.item() == pytest.approx(math.log(2) / 2)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_rmsle_by_hand() -> None:
    teacher, student = grid(math.e - 1, 0.0), grid(0.0, math.e**2 - 1)
    loss = losses.root_mean_squared_log_error(teacher, student)
    assert loss.item() == pytest.approx(math.sqrt(2.5), abs=1e-6)


def test_rmsle_root_is_over_the_batch_not_per_image() -> None:
    teacher, student = torch.zeros(2, 1, 1), torch.tensor([math.e - 1, 0.0]).view(2, 1, 1)
    loss = losses.root_mean_squared_log_error(teacher, student)
    assert loss.item() == pytest.approx(math.sqrt(0.5), abs=1e-6)


def test_rmsle_has_a_gradient_where_student_equals_teacher() -> None:
    student = grid(1.0, 2.0).requires_grad_()
    losses.root_mean_squared_log_error(grid(1.0, 2.0), student).backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_mse_and_huber_by_hand() -> None:
    mean, target, valid = grid(1.0, 5.0, 9.0), grid(1.5, 2.0, 0.0), grid(1, 1, 0).bool()
    assert losses.mean_squared_error(mean, target, valid).item() == pytest.approx((0.25 + 9) / 2)
    expected = (0.5 * 0.25 + (3 - 0.5)) / 2
    assert losses.huber(mean, target, valid).item() == pytest.approx(expected)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(0, 6))
def test_masked_pixels_do_not_count(seed: int, hidden: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, variance, target = torch.rand(3, 1, 2, 4, generator=generator) + 0.1
    valid = torch.ones(1, 8, dtype=torch.bool)
    valid[0, torch.randperm(8, generator=generator)[:hidden]] = False
    valid = valid.view(1, 2, 4)
    broken = target.masked_fill(~valid, 1e3)
    for loss in (losses.mean_squared_error, losses.huber):
        assert loss(mean, broken, valid) == pytest.approx(
            loss(
                mean[valid].view(1, 1, -1),
                target[valid].view(1, 1, -1),
                ALL.expand(1, 1, 8 - hidden),
            ).item()
        )
    assert losses.gaussian_nll(mean, variance, broken, valid) == pytest.approx(
        losses.gaussian_nll(mean, variance, target, valid).item()
    )


def test_nothing_labelled_is_no_loss() -> None:
    nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
    assert losses.gaussian_nll(grid(1.0), grid(1.0), grid(0.0), nothing) == 0
    unlabelled = torch.full((1, 1, 1), 255)
    assert losses.cross_entropy(torch.randn(1, 3, 1, 1), unlabelled) == 0
    assert losses.cross_entropy(torch.randn(1, 3, 1, 1), unlabelled, torch.ones(3)) == 0


def test_weighted_classes_by_hand() -> None:
    """Two pixels of 'road' with a loss of ln 2, one of 'pole' with ln 4, which counts thrice."""
    logits = torch.log(torch.tensor([[0.5, 0.5, 0.75, 0.1], [0.5, 0.5, 0.25, 0.9]]))[None, :, None]
    labels = torch.tensor([[[0, 0, 1, 255]]])
    weight = losses.class_weights({"pole": 3.0}, ("road", "pole"))
    assert weight is not None and weight.tolist() == [1, 3]
    expected = (2 * math.log(2) + 3 * math.log(4)) / 5
    assert losses.cross_entropy(logits, labels, weight).item() == pytest.approx(expected)
    plain = (2 * math.log(2) + math.log(4)) / 3
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(plain)
    assert losses.class_weights({}, ("road", "pole")) is None
    with pytest.raises(ValueError, match="no class 'poles'; known: road, pole"):
        losses.class_weights({"poles": 3.0}, ("road", "pole"))


def test_missing_depth_counts_by_how_sure_the_teacher_is() -> None:
    teacher, mean = grid(10.0, 10.0), grid(20.0, 5.0)
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    squared = math.log(2) ** 2
    # Relative deviations of 0.1 and 0.2: weights of 100 and 25.
    found = losses.precision_weighted_log_error(mean, teacher, grid(1.0, 4.0), valid)
    assert found.item() == pytest.approx(squared, rel=1e-6)
    mean = grid(20.0, 10.0)
    found = losses.precision_weighted_log_error(mean, teacher, grid(1.0, 4.0), valid)
    assert found.item() == pytest.approx(squared * 100 / 125, rel=1e-6)
    alike = losses.precision_weighted_log_error(mean, teacher, None, valid)
    assert alike.item() == pytest.approx(squared / 2, rel=1e-6)
    # Surer than one in twenty counts no more.
    found = losses.precision_weighted_log_error(mean, teacher, grid(0.0, 0.25), valid)
    assert found.item() == pytest.approx(squared / 2, rel=1e-6)
    nothing = losses.precision_weighted_log_error(mean, teacher, None, ~valid)
    assert nothing.item() == 0


def test_a_coarse_label_costs_the_log_of_the_summed_probability() -> None:
    logits = torch.randn(1, 4, 1, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[1, 4, 255]]])  # a class, one of the classes 0 and 3, nothing
    probabilities = torch.softmax(logits, 1)[0, :, 0]
    expected = -(
        torch.log(probabilities[1, 0]) + torch.log(probabilities[0, 1] + probabilities[3, 1])
    )
    loss = losses.cross_entropy(logits, labels, groups=[(0, 3)])
    assert torch.allclose(loss, expected / 2)
    only = losses.cross_entropy(logits, torch.full_like(labels, 4), groups=[(0, 3)])
    assert torch.allclose(only, -torch.log(probabilities[0] + probabilities[3]).mean())


def test_a_group_of_all_classes_costs_nothing() -> None:
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    labels = torch.full((2, 2, 2), 3)
    loss = losses.cross_entropy(logits, labels, torch.tensor([1.0, 2.0, 3.0]), [(0, 1, 2)])
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6


def test_the_gradient_loss_ignores_scale_and_punishes_flattened_objects() -> None:
    truth = torch.full((1, 8, 8), 20.0)
    truth[:, 2:6, 2:6] = 7.0  # a car before a wall
    valid = torch.ones_like(truth, dtype=torch.bool)
    assert losses.log_gradient(1.3 * truth, truth, valid).item() < 1e-6
    flat = losses.log_gradient(torch.full_like(truth, 20.0), truth, valid, steps=(1,))
    # 16 of the 112 neighbouring pairs cross the car's edge, each ln(20 / 7) off.
    assert flat.item() == pytest.approx(16 / 112 * math.log(20 / 7), rel=1e-5)


def test_the_gradient_loss_needs_depth_at_both_pixels() -> None:
    truth = torch.tensor([[[4.0, 8.0, 0.0, 8.0]]])
    mean = torch.tensor([[[4.0, 4.0, 1.0, 9.0]]])
    loss = losses.log_gradient(mean, truth, truth > 0, steps=(1, 2))
    assert loss.item() == pytest.approx((math.log(2) + math.log(9 / 4)) / 2, rel=1e-5)
    assert losses.log_gradient(mean, truth, truth < 0).item() == 0
