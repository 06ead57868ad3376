"""A teacher's targets and the maps of a student, against the formulas of the core."""

import math

import pytest
import torch

from emu_perception.networks.raw_outputs import RawOutputs
from emu_perception.training.targets import activate, pool_members
from emu_perception.uncertainty import activate_depth, depth_maps, semantic_maps

SIZE = (8, 12)


def raw(members: int, seed: int = 0) -> RawOutputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "semantic": torch.randn(members, 2, 5, *SIZE, generator=generator),
        "depth": torch.randn(members, 2, 2, *SIZE, generator=generator) + 40,
    }


def test_members_one_by_one_are_the_members_at_once() -> None:
    outputs = raw(4)
    found = pool_members(outputs, SIZE)
    semantic = semantic_maps(outputs["semantic"])
    depth = depth_maps(*activate_depth(outputs["depth"], dim=2))
    assert torch.allclose(found.probabilities, semantic.probabilities, atol=1e-6)
    assert torch.allclose(found.mutual_information, semantic.mutual_information, atol=1e-5)
    assert torch.allclose(found.variance, depth.variance, rtol=1e-4)
    assert torch.allclose(found.epistemic_variance, depth.epistemic_variance, rtol=1e-4, atol=1e-5)


def test_equation_ten_by_hand() -> None:
    means = torch.tensor([1.0, 3.0])
    inverse_softplus = torch.log(torch.expm1(torch.tensor([0.5, 0.7])))
    depth = torch.stack([means, inverse_softplus], 1).view(2, 1, 2, 1, 1)
    found = pool_members({"depth": depth}, (1, 1))
    assert found.variance.item() == pytest.approx(1.6)
    assert found.epistemic_variance.item() == pytest.approx(1.0)
    assert found.probabilities is None


def test_members_without_a_variance_have_that_of_their_means() -> None:
    depth = torch.tensor([1.0, 3.0, -2.0]).view(3, 1, 1, 1, 1)  # the last one is dead: 0 m
    found = pool_members({"depth": depth}, (1, 1))
    assert found.mean.item() == pytest.approx(4 / 3)
    assert found.variance.item() == found.epistemic_variance.item() == pytest.approx(14 / 9)


def test_one_network_teaches_without_epistemic_part() -> None:
    outputs = {task: maps[0] for task, maps in raw(1).items()}
    found = pool_members(outputs, SIZE)
    assert found.epistemic_variance.abs().max() == 0
    assert found.mutual_information.abs().max() <= 1e-5


def test_normals_and_edges_of_members_by_hand() -> None:
    right, ahead = [3.0, 0.0, 0.0], [0.0, 0.0, -5.0]  # of any length
    normals = torch.tensor([right, ahead]).view(2, 1, 3, 1, 1)
    edges = torch.tensor([[0.0, 0.0], [0.0, math.log(9)]]).view(2, 1, 2, 1, 1)
    found = pool_members({"normals": normals, "edges": edges}, (1, 1))
    half = math.sqrt(0.5)
    assert found.others["normals"].flatten().tolist() == pytest.approx([half, 0, -half])
    assert found.others["edges"].item() == pytest.approx((0.5 + 0.9) / 2)
    one = pool_members({"normals": normals[0], "edges": edges[0]}, (1, 1))
    assert (
        one.others["normals"].flatten().tolist() == [1, 0, 0] and one.others["edges"].item() == 0.5
    )


def test_channels_of_a_student_with_split_uncertainty() -> None:
    generator = torch.Generator().manual_seed(2)
    outputs = {
        "semantic": torch.randn(1, 6, *SIZE, generator=generator),
        "depth": torch.randn(1, 3, *SIZE, generator=generator),
    }
    found = activate(outputs, SIZE, 5)
    assert torch.equal(found.logits, outputs["semantic"][:, :5])
    assert torch.allclose(
        found.mutual_information, torch.nn.functional.softplus(outputs["semantic"][:, 5])
    )
    aleatoric = activate_depth(outputs["depth"][:, :2])[1]
    assert torch.allclose(found.variance, aleatoric + found.epistemic_variance)
    plain = activate(
        {"semantic": outputs["semantic"][:, :5], "depth": outputs["depth"][:, :2]}, SIZE, 5
    )
    assert plain.mutual_information is None and plain.epistemic_variance is None
