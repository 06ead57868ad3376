"""XTasC-Net's and MTPSL's modules: what their losses teach, and what they must leave alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny

from emu_perception.labels import load_label_set
from emu_perception.training.data import Batch, collate
from emu_perception.training.multitask.pairs import METHODS
from emu_perception.training.multitask.partial import PartialModule
from emu_perception.training.multitask.transfer import TransferModule, disagreement
from emu_perception.training.registry import build_module
from emu_perception.training.run import build_network, describe_model
from emu_perception.training.sample import Sample

TASKS = ("semantic", "depth")


def module(partial: dict[str, Any] | None = None, **transfer: Any) -> Any:
    widths = [] if partial else [2, 4, 4]
    arguments = {"width": 4, "transfer_widths": widths, "unit": "metres"}
    config = tiny.config(
        Path("data"),
        Path("out"),
        model={"architecture": "xtasc", "backbone": "resnet10t", "arguments": arguments},
        multitask={"losses": {"depth": "l1"}, "transfer": transfer, "partial": partial},
    )
    spec = describe_model(config, load_label_set("nyuv2_13"))
    return build_module(config, spec, build_network(config, spec)).train()


def batch(*hidden: str, share: float = 1.0) -> Batch:
    """Images with both labels, but those of one task hidden, image by image.

    Args:
        hidden: a task to hide per image; "" = none.
        share: of the pixels with depth.
    """
    rng = np.random.default_rng(0)
    samples = []
    for number, task in enumerate(hidden):
        depth = rng.uniform(1, 9, (64, 64)).astype(np.float32)
        depth *= rng.uniform(size=depth.shape) < share
        sample = Sample(
            str(number),
            "clip",
            rng.integers(0, 256, (64, 64, 3), np.uint8),
            labels=rng.integers(0, 13, (64, 64), np.uint8),
            depth=depth,
        )
        samples.append(sample.without(task) if task else sample)
    return collate(samples, TASKS)


def gradient(loss: torch.Tensor, *tensors: torch.Tensor) -> list[float]:
    """Summed absolute gradients; 0 for a tensor that the loss does not depend on."""
    found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [0.0 if each is None else each.abs().sum().item() for each in found]


def test_cross_task_loss_leaves_the_direct_prediction_alone() -> None:
    trained = module(loss="consistency", weight=0.5)
    given = batch("", "")
    dense = trained.network.dense(trained.normalization(given["image"]))
    losses = trained.transfer_losses(dense, given)
    assert losses.keys() == set(TASKS)
    for target, source in (("semantic", "depth"), ("depth", "semantic")):
        direct, read = gradient(losses[target], dense.scales[0][target], dense.scales[0][source])
        assert direct == 0
        assert read > 0
        own = trained.network.decoders[target].predict.weight
        assert gradient(losses[target], own) == [0]
    # A task's loss is (1 - λ) direct + λ transferred.
    mixed = trained.task_losses(dense, given)
    alone = super(TransferModule, trained).task_losses(dense, given)
    for task in TASKS:
        expected = 0.5 * alone[task].item() + 0.5 * losses[task].item()
        assert mixed[task].item() == pytest.approx(expected, rel=1e-5)


def test_align_net_holds_transferred_predictions_against_labels() -> None:
    trained = module(loss="alignment")
    given = batch("", "")
    dense = trained.network.dense(trained.normalization(given["image"]))
    before = {task: loss.item() for task, loss in trained.transfer_losses(dense, given).items()}
    given["depth"] = given["depth"] / 2
    after = trained.transfer_losses(dense, given)
    assert after["semantic"].item() == before["semantic"]
    assert after["depth"].item() != before["depth"]


def test_observing_networks_teach_nothing_to_what_they_observe() -> None:
    trained = module(loss="observe", weight=0.5)
    given = batch("", "")
    dense = trained.network.dense(trained.normalization(given["image"]))
    term = sum(trained.extra_terms(dense, given).values())
    term.backward()
    reached = {name for name, p in trained.named_parameters() if p.grad is not None}
    assert reached == {n for n, _ in trained.named_parameters() if ".transfers." in n}
    # The tasks' own losses are those of a plain multi-task network.
    plain = super(TransferModule, trained).task_losses(dense, given)
    assert trained.task_losses(dense, given) == plain
    found = disagreement(trained.network.eval(), dense)
    assert 0 <= found["semantic"] <= 1 and found["depth"] > 0


def test_a_regulariser_does_not_move_the_features_that_it_compares_with() -> None:
    arguments = {"widths": [4, 4, 8, 8], "consistency": 0.0, "regularization": 0.5}
    trained = module({"method": "mapping", "arguments": arguments})
    assert isinstance(trained, PartialModule)
    given = batch("depth", "semantic")
    plain = trained.pairs.forward

    def gradients(detached: bool) -> list[torch.Tensor]:
        def forward(pair: Any, losses: Any) -> torch.Tensor:
            features = pair.features.detach() if detached else pair.features
            assert pair.features.requires_grad
            return plain(pair._replace(features=features), losses)

        trained.pairs.forward = forward
        torch.manual_seed(3)  # of the windows and the Gumbel softmax
        dense = trained.network.dense(trained.normalization(given["image"]))
        (term,) = trained.extra_terms(dense, given).values()
        return list(torch.autograd.grad(term, list(trained.network.encoder.parameters())))

    as_it_is, cut = gradients(False), gradients(True)
    assert sum(each.abs().sum() for each in as_it_is) > 0
    for one, other in zip(as_it_is, cut, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", ["perturbation", *METHODS])
def test_every_method_trains_under_one_label_each(method: str) -> None:
    widths = [4, 4, 8] if method.endswith("map") else [4, 4, 8, 8]
    arguments = {} if method == "perturbation" else {"arguments": {"widths": widths}}
    trained = module({"method": method, **arguments})
    torch.manual_seed(0)
    loss = trained.training_step(batch("depth", "semantic", "depth"), 0)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in trained.network.parameters() if p.grad is not None]
    assert len(gradients) == len(list(trained.network.parameters()))
    assert all(torch.isfinite(each).all() for each in gradients)


def test_sparse_depth_only_supervises() -> None:
    trained = module({"method": "mapping", "arguments": {"widths": [4, 4, 8, 8]}})
    given = batch("semantic", "semantic", share=0.05)
    dense = trained.network.dense(trained.normalization(given["image"]))
    (term,) = trained.extra_terms(dense, given).values()
    assert term == 0
    assert trained.task_losses(dense, given)["depth"] > 0
    (term,) = trained.extra_terms(dense, batch("semantic", "semantic")).values()
    assert term > 0
