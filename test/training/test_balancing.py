"""Hand-worked cases of the weightings: two tasks whose gradients are known vectors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.training import balancing
from emu_perception.training.weighting import Weighting, build_weighting

TASKS = ("semantic", "depth")


def losses(*gradients: tuple[float, ...]) -> tuple[dict[str, Tensor], nn.Parameter]:
    """Losses of value 1 whose gradients on one shared parameter are the given vectors."""
    shared = nn.Parameter(torch.zeros(len(gradients[0])))
    names = ("semantic", "depth", "normals")
    return {n: 1 + shared @ torch.tensor(g) for n, g in zip(names, gradients)}, shared


def direction(weighting: Weighting, *gradients: tuple[float, ...]) -> list[float]:
    """The gradient of the total."""
    found, shared = losses(*gradients)
    (gradient,) = torch.autograd.grad(weighting(found, [shared]), shared)
    return gradient.tolist()


def test_uncertainty_is_half_the_scaled_loss_plus_s() -> None:
    weighting = build_weighting("uncertainty", TASKS, {})
    with torch.no_grad():
        weighting.log_variance[0] = math.log(2.0)
    total = weighting({"semantic": torch.tensor(3.0), "depth": torch.tensor(5.0)}, [])
    assert total.item() == pytest.approx(3 / 4 + math.log(2.0) + 5 / 2)
    total.backward()
    assert weighting.log_variance.grad.tolist() == pytest.approx([1 - 3 / 4, 1 - 5 / 2])


def test_a_task_without_labels_does_not_move_its_uncertainty() -> None:
    weighting = build_weighting("uncertainty", TASKS, {})
    # A part between tasks makes its loss more than 0.
    given = {"semantic": torch.tensor(3.0), "depth": torch.tensor(0.2)}
    total = weighting(given, [], torch.tensor([True, False]))
    assert total.item() == pytest.approx((3.0 + 0.2) / 2)
    total.backward()
    assert weighting.log_variance.grad.tolist() == pytest.approx([1 - 3 / 2, 0.0])


def test_a_loss_of_zero_with_labels_moves_its_uncertainty() -> None:
    weighting = build_weighting("uncertainty", TASKS, {})
    weighting({"semantic": torch.tensor(3.0), "depth": torch.tensor(0.0)}, []).backward()
    assert weighting.log_variance.grad.tolist() == pytest.approx([1 - 3 / 2, 1.0])


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "gradnorm"])
def test_losses_below_zero_are_refused_where_they_cannot_be_weighted(name: str) -> None:
    found, shared = losses((1.0, 0.0), (0.0, 1.0))
    found["depth"] = found["depth"] - 1.3
    with pytest.raises(ValueError, match=rf"'{name}' needs .* that of depth is -0.3; take a loss"):
        build_weighting(name, TASKS, {})(found, [shared])


@pytest.mark.parametrize("name", ["fixed", "pcgrad", "mgda"])
def test_others_do_not_mind_losses_below_zero(name: str) -> None:
    gradients = []
    for shift in (0.0, 1.3):
        found, shared = losses((2.0, 0.0), (0.0, 2.0))
        total = build_weighting(name, TASKS, {})({t: v - shift for t, v in found.items()}, [shared])
        gradients.append(torch.autograd.grad(total, shared)[0].tolist())
    assert gradients[0] == gradients[1]


def test_processes_reduce_vectors_of_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's images have no depth, the other's gradients are known."""
    # Gradients of depth and of the classes, then losses and how many processes have labels.
    others = [torch.tensor([[0.0, 4.0], [0.0, 2.0]]), torch.tensor([[3.0, 5.0], [1.0, 1.0]])]
    found, shared = losses((2.0, 0.0), (7.0, 7.0))

    def reduce(values: Tensor) -> None:
        other = others.pop(0)
        assert values.shape == other.shape
        values += other

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    orders = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda values, src: orders.append(values))
    seen = {}

    class Watched(balancing.PCGrad):
        def weigh(self, rows: Tensor, losses: Tensor, products: Tensor) -> Tensor:
            seen.update(rows=rows.tolist(), losses=losses.tolist(), products=products.tolist())
            return super().weigh(rows, losses, products)

    weighting = Watched(TASKS, {})
    total = weighting(found, [shared], torch.tensor([True, False]))
    # The means over both processes: (1, 2) and (0, 1).
    assert seen == {
        "rows": [0, 1],
        "losses": [2.0, 5.0],
        "products": [[5.0, 2.0], [2.0, 1.0]],
    }
    assert [sorted(order) for order in orders[0].tolist()] == [[0, 1], [0, 1]]
    assert total.item() == 2  # both weights are 1, though depth has no labels here


def test_pcgrad_takes_conflicts_out_of_each_gradient() -> None:
    # g1 = (1, 0) and g2 = (-1, 1): g1' = g1 + g2 / 2 = (.5, .5), g2' = g2 + g1 = (0, 1).
    weighting = build_weighting("pcgrad", TASKS, {})
    assert direction(weighting, (1.0, 0.0), (-1.0, 1.0)) == pytest.approx([0.5, 1.5])


def test_mixed_precision_leaves_the_products_of_gradients_finite() -> None:
    shared = torch.nn.Parameter(torch.ones(2))
    with torch.autocast("cpu", torch.float16):
        found = balancing.gram_matrix([300 * shared.sum(), shared[0] / 10], [shared])
    assert found.flatten().tolist() == pytest.approx([180_000, 30, 30, 0.01])


def test_mixed_precision_loses_no_small_gradient() -> None:
    shared = torch.nn.Linear(8, 1, bias=False)
    images = torch.rand(500_000, 8)
    products = {}
    for enabled in (True, False):
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            said = shared(images)
            products[enabled] = balancing.gram_matrix([said.float().mean() / 99], [shared.weight])
    assert products[True].item() == pytest.approx(products[False].item(), rel=0.05)


def test_pcgrad_leaves_gradients_that_agree_alone() -> None:
    weighting = build_weighting("pcgrad", TASKS, {})
    assert direction(weighting, (1.0, 0.0), (1.0, 1.0)) == pytest.approx([2.0, 1.0])


def test_pcgrad_of_three_tasks_conflicts_with_none_of_two_opposed_ones() -> None:
    torch.manual_seed(0)
    weighting = build_weighting("pcgrad", (*TASKS, "normals"), {})
    # The third is orthogonal to both, the first two are opposed: they cancel each other out.
    found = direction(weighting, (1.0, 0.0, 0.0), (-2.0, 0.0, 0.0), (0.0, 0.0, 3.0))
    assert found == pytest.approx([0.0, 0.0, 3.0])


@pytest.mark.parametrize(
    ("first", "second", "shortest"),
    [
        # The foot of the perpendicular from the origin on the line between them.
        ((2.0, 0.0), (0.0, 2.0), (1.0, 1.0)),
        # The share of the first is (g2 - g1)·g2 / |g2 - g1|² = (12 + 2) / 17.
        ((1.0, 1.0), (-3.0, 2.0), (14 / 17 - 3 * 3 / 17, 14 / 17 + 3 * 2 / 17)),
        # The shorter one itself where the perpendicular misses the segment.
        ((1.0, 0.0), (3.0, 0.5), (1.0, 0.0)),
    ],
)
def test_mgda_closed_form(
    first: tuple[float, ...], second: tuple[float, ...], shortest: tuple[float, ...]
) -> None:
    weighting = build_weighting("mgda", TASKS, {})
    assert direction(weighting, first, second) == pytest.approx(list(shortest), abs=1e-5)
    assert direction(weighting, second, first) == pytest.approx(list(shortest), abs=1e-5)


def test_mgda_of_three_tasks_finds_the_point_nearest_to_the_origin() -> None:
    weighting = build_weighting("mgda", (*TASKS, "normals"), {})
    # The plane x + y + z = 3 is nearest at (1, 1, 1).
    found = direction(weighting, (3.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 3.0))
    assert found == pytest.approx([1.0, 1.0, 1.0], abs=0.05)


def test_mgda_does_not_give_everything_to_a_task_without_labels() -> None:
    weighting = build_weighting("mgda", TASKS, {})
    shared = nn.Parameter(torch.tensor([1.0]))
    found = {"semantic": 2 * shared.sum(), "depth": 0 * shared.sum()}
    (gradient,) = torch.autograd.grad(weighting(found, [shared]), shared)
    assert gradient.item() == pytest.approx(2.0)
    # A loss between tasks alone.
    found = {"semantic": 2 * shared.sum(), "depth": 0.1 * shared.sum()}
    labelled = torch.tensor([True, False])
    (gradient,) = torch.autograd.grad(weighting(found, [shared], labelled), shared)
    assert gradient.item() == pytest.approx(2.0)


def test_gradnorm_moves_weight_from_the_steep_task_to_the_flat_one() -> None:
    weighting = build_weighting("gradnorm", TASKS, {}, step=0.1)
    # Norms 3 and 1, both at their first loss: the target is their mean, 2, so the first weight
    # falls by 0.1 · 3 to 0.7 and the second rises by 0.1 · 1 to 1.1; then both sum to 2.
    assert direction(weighting, (3.0, 0.0), (0.0, 1.0)) == pytest.approx([3 * 0.7 / 0.9, 1.1 / 0.9])


def test_gradnorm_gives_weight_to_the_task_that_lags() -> None:
    weighting = build_weighting("gradnorm", TASKS, {}, alpha=1.0, step=0.1)
    products = torch.eye(2)
    rows = torch.arange(2)
    weighting.weigh(rows, torch.tensor([4.0, 4.0]), products)
    weights = weighting.weigh(rows, torch.tensor([4.0, 1.0]), products)
    assert weights[0] > 1 > weights[1]


def test_dynamic_weight_average_follows_the_last_two_epochs() -> None:
    weighting = build_weighting("dwa", TASKS, {}, temperature=2.0)
    for semantic, depth in ((4.0, 2.0), (2.0, 2.0)):
        weighting({"semantic": torch.tensor(semantic), "depth": torch.tensor(depth)}, [])
        weighting.on_epoch_end()
    # Ratios 1/2 and 1.
    expected = [2 * math.exp(r / 2) / (math.exp(0.25) + math.exp(0.5)) for r in (0.5, 1.0)]
    total = weighting({"semantic": torch.tensor(1.0), "depth": torch.tensor(0.0)}, [])
    assert total.item() == pytest.approx(expected[0])
    assert weighting.factor("depth") == pytest.approx(expected[1])
    assert weighting.current.tolist() == pytest.approx(expected)


def test_dynamic_weight_average_leaves_out_batches_without_labels() -> None:
    weighting = build_weighting("dwa", TASKS, {})
    for depth, has in ((2.0, True), (0.7, False), (4.0, True)):
        given = {"semantic": torch.tensor(1.0), "depth": torch.tensor(depth)}
        weighting(given, [], torch.tensor([True, has]))
    weighting.on_epoch_end()
    assert weighting.before.tolist() == pytest.approx([1.0, 3.0])


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "gradnorm", "pcgrad", "mgda"])
def test_the_given_factors_scale_the_losses_first(name: str) -> None:
    torch.manual_seed(0)
    plain, scaled = build_weighting(name, TASKS, {}), build_weighting(name, TASKS, {"depth": 3.0})
    first, shared = losses((1.0, 0.5), (0.0, 3.0))
    second, other = losses((1.0, 0.5), (0.0, 1.0))
    first["depth"] = first["depth"] + 2  # three times the other's value and gradient
    assert plain(first, [shared]).item() == pytest.approx(scaled(second, [other]).item())


def test_gradients_need_shared_parameters() -> None:
    found, _ = losses((1.0,), (2.0,))
    with pytest.raises(ValueError, match="parameters that the tasks share"):
        balancing.gram_matrix(list(found.values()), [])
