"""Losses between tasks: which images count for which pair, and where gradients flow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emu_perception.networks.depth_unit import DEPTH_UNITS
from emu_perception.training.multitask.pairs import (
    METHODS,
    JointMapping,
    Pair,
    Perturbation,
    cosine_distance,
    inverse_depth,
    label_as_input,
    pairs_of_batch,
    prediction_as_input,
)
from emu_perception.training.multitask.task_losses import find_loss
from emu_perception.training.multitask.transfer import (
    transferred_depth_loss,
    transferred_scores_loss,
)

CHANNELS = {"semantic": 3, "depth": 1}
WIDTHS = (4, 8, 8, 8)
FACTORS = {"semantic": 2.0, "depth": 0.5}.__getitem__
LOSSES = {"semantic": find_loss("semantic"), "depth": find_loss("depth", "l1")}


def pair(source: str = "semantic", target: str = "depth") -> Pair:
    torch.manual_seed(0)
    predictions = {
        "semantic": torch.randn(2, 3, 64, 64, requires_grad=True),
        "depth": torch.rand(2, 1, 64, 64, requires_grad=True),
    }
    label = torch.randint(3, (2, 64, 64)) if target == "semantic" else torch.rand(2, 64, 64) + 1
    valid = torch.ones(2, 64, 64, dtype=torch.bool)
    features = torch.rand(2, 6, 2, 2, requires_grad=True)
    return Pair(source, target, predictions, label, valid, features)


def test_no_gradient_from_the_transferred_into_the_direct_prediction() -> None:
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    for soft in (False, True):
        transferred, direct = (torch.randn(1, 3, 4, 4, requires_grad=True) for _ in range(2))
        transferred_scores_loss(transferred, direct, mask, soft=soft).backward()
        assert direct.grad is None
        assert transferred.grad.abs().sum() > 0
    transferred, direct = (torch.randn(1, 1, 4, 4, requires_grad=True) for _ in range(2))
    transferred_depth_loss(transferred, direct, mask).backward()
    assert direct.grad is None
    assert transferred.grad.abs().sum() > 0


def test_transferred_losses_by_hand() -> None:
    mask = torch.tensor([[[True, True, False]]])
    transferred = torch.tensor([1.0, 4.0, 9.0]).view(1, 1, 1, 3)
    direct = torch.tensor([2.0, 2.0, 0.0]).view(1, 1, 1, 3)
    assert transferred_depth_loss(transferred, direct, mask).item() == pytest.approx(1.5)
    scores = torch.zeros(1, 2, 1, 3)
    hard = transferred_scores_loss(scores, torch.randn(1, 2, 1, 3), mask)
    # The mean is over all three pixels: the one outside the mask counts as 0.
    assert hard.item() == pytest.approx(0.693147 * 2 / 3, abs=1e-5)


def test_no_gradient_from_the_regulariser_into_the_features() -> None:
    method = JointMapping(CHANNELS, 6, WIDTHS, consistency=0.0, regularization=0.5)
    given = pair()
    method(given, LOSSES, FACTORS).backward()
    assert given.features.grad is None
    assert given.predictions["semantic"].grad.abs().sum() > 0
    assert all(p.grad is not None for p in method.mapping.stages.parameters())


def test_consistency_and_regulariser_add_up_and_either_can_be_left_out() -> None:
    given = pair()

    def value(**weights: float) -> float:
        torch.manual_seed(1)
        method = JointMapping(CHANNELS, 6, WIDTHS, **weights)
        torch.manual_seed(2)  # of the Gumbel softmax
        return method(given, LOSSES, FACTORS).item()

    both = value(consistency=1.0, regularization=0.5)
    alone = value(consistency=1.0, regularization=0.0), value(consistency=0.0, regularization=0.5)
    assert both == pytest.approx(sum(alone), abs=1e-5)
    assert min(alone) > 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", ["depth", "semantic"])
def test_every_method_teaches_the_task_without_a_label(name: str, target: str) -> None:
    source = "semantic" if target == "depth" else "depth"
    widths = (4, 8, 8) if name.endswith("map") else WIDTHS
    method = METHODS[name](CHANNELS, 6, widths=widths)
    given = pair(source, target)
    loss = method(given, LOSSES, FACTORS)
    loss.backward()
    assert torch.isfinite(loss)
    assert given.predictions[source].grad.abs().sum() > 0


def test_a_source_lacks_a_label_unless_the_image_has_all() -> None:
    has = {
        "semantic": torch.tensor([True, False, True, False]),
        "depth": torch.tensor([False, True, True, False]),
    }
    found = {k: v.tolist() for k, v in pairs_of_batch(has).items()}
    assert found == {
        ("semantic", "depth"): [False, True, True, False],
        ("depth", "semantic"): [True, False, True, False],
    }


def test_inputs_of_the_mapping() -> None:
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    hard = prediction_as_input(scores, "semantic")
    torch.testing.assert_close(hard.sum(1), torch.ones(1, 4, 4))
    assert set(hard.detach().unique().tolist()) <= {0.0, 1.0}
    depth = torch.tensor([[2.0, 8.0]]).view(1, 1, 1, 2)
    assert prediction_as_input(depth, "depth").flatten().tolist() == [0.25, 1.0]
    normals = torch.tensor([0.0, 0.0, -2.0]).view(1, 3, 1, 1)
    assert prediction_as_input(normals, "normals").flatten().tolist() == [0.5, 0.5, 0.0]
    label, valid = torch.tensor([[[1, 255]]]), torch.tensor([[[True, False]]])
    assert label_as_input(label, valid, "semantic", 3)[0, :, 0].tolist() == [[0, 0], [1, 0], [0, 0]]
    # A normal that is unknown is (0, 0, 0), whatever the label holds there.
    true = torch.tensor([[0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]]).view(1, 3, 1, 2)
    found = label_as_input(true, valid, "normals", 3)
    assert found[0, :, 0].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.5]]


@pytest.mark.parametrize("unit", ["metres", "logarithm", "inverse"])
def test_the_sky_does_not_decide_how_inverse_depth_is_normalised(unit: str) -> None:
    encode = DEPTH_UNITS[unit].encode
    read = inverse_depth(DEPTH_UNITS[unit], nearest=0.5)
    found = []
    for sky in (200.0, 800.0):
        metres = torch.tensor([2.0, 8.0, 0.1, sky]).view(1, 1, 1, 4)
        found.append(prediction_as_input(encode(metres), "depth", read).flatten().tolist())
    # 0.1 m is read as 0.5 m, and is the maximum.
    assert found[0][:3] == pytest.approx([0.25, 0.0625, 1.0], rel=1e-4)
    assert found[1][:3] == pytest.approx(found[0][:3], rel=1e-4)
    assert max(found[0][3], found[1][3]) < 0.003
    label = encode(torch.tensor([[[2.0, 8.0, 50.0]]]))
    valid = torch.tensor([[[True, True, False]]])
    known = label_as_input(label, valid, "depth", 1, read).flatten().tolist()
    assert known == pytest.approx([1.0, 0.25, 0.0], rel=1e-4)


def test_batch_norms_of_the_mapping_see_one_image_at_a_time() -> None:
    given = pair("depth", "semantic")
    torch.manual_seed(1)
    method = JointMapping(CHANNELS, 6, WIDTHS)
    with torch.no_grad():
        for parameter in method.mapping.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    both = method.mapped(given)
    for one in (slice(0, 1), slice(1, 2)):
        predictions = {task: raw[one] for task, raw in given.predictions.items()}
        alone = given._replace(
            predictions=predictions, label=given.label[one], valid=given.valid[one]
        )
        maps = (
            prediction_as_input(predictions["depth"], "depth"),
            label_as_input(alone.label, alone.valid, "semantic", 3),
        )
        between = ("depth", "semantic")
        for mapped, x, task in zip(both, maps, between, strict=True):
            expected = method.mapping(x, task, between)  # batch norm of one image
            torch.testing.assert_close(mapped[one], expected, atol=1e-3, rtol=1e-3)


def test_cosine_distance_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 2)
    second = torch.tensor([[1.0, 0.0], [0.0, -1.0]]).T.reshape(1, 2, 1, 2)
    assert cosine_distance(first, second).item() == pytest.approx((0 + 2) / 2)


def test_perturbation_trusts_only_what_is_certain() -> None:
    teacher = torch.tensor([[10.0, 0.0], [0.5, 0.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    student: Tensor = torch.zeros(1, 2, 1, 2, requires_grad=True)
    loss = Perturbation()("semantic", student, teacher)
    assert loss.item() == pytest.approx(0.693147 / 2, abs=1e-5)
    loss.backward()
    assert teacher.grad is None
    depth, sure = torch.tensor([1.05, 2.0]), torch.tensor([1.0, 1.0])
    found = Perturbation()("depth", depth.view(1, 1, 1, 2), sure.view(1, 1, 1, 2))
    assert found.item() == pytest.approx(0.05 / 2, abs=1e-6)
    # 0.2 is a fifth of 1 m and a hundredth of 20 m.
    far, near = torch.tensor([1.2, 20.2]).view(1, 1, 1, 2), torch.tensor([1.0, 20.0])
    by_share = Perturbation()("depth", far, near.view(1, 1, 1, 2))
    assert by_share.item() == pytest.approx(0.2 / 2, abs=1e-5)
    assert Perturbation(absolute=True)("depth", far, near.view(1, 1, 1, 2)) == 0


def test_losses_in_a_task_s_unit_take_its_factor() -> None:
    given = pair()
    for name, task in (("direct_map", "depth"), ("perceptual_map", "semantic"), ("mapping", "")):
        torch.manual_seed(1)
        method = METHODS[name](CHANNELS, 6, widths=WIDTHS[: 4 if name == "mapping" else 3])

        def value(factors: dict[str, float], method: Any = method) -> float:
            torch.manual_seed(2)  # of the Gumbel softmax
            return method(given, LOSSES, factors.__getitem__).item()

        plain = value({"semantic": 1.0, "depth": 1.0})
        scaled = value({"semantic": 3.0, "depth": 5.0})
        assert scaled == pytest.approx({"depth": 5, "semantic": 3, "": 1}[task] * plain, rel=1e-4)


def test_the_regulariser_compares_with_what_features_have_above_zero() -> None:
    given = pair()
    signed = given.features.detach() - 0.5

    def value(features: Tensor) -> float:
        torch.manual_seed(1)
        method = JointMapping(CHANNELS, 6, WIDTHS, consistency=0.0)
        torch.manual_seed(2)
        return method(given._replace(features=features), LOSSES, FACTORS).item()

    assert value(signed) == value(signed.clamp_min(0)) != value(signed.abs())


def test_direct_maps_to_depth_start_where_they_are_told() -> None:
    method = METHODS["direct_map"](CHANNELS, 6, (4, 8, 8))
    method.start_depth_at(15.0)
    found = method.maps["semantic_to_depth"](torch.randn(1, 3, 64, 64))
    assert found.mean().item() == pytest.approx(15, rel=0.3)
