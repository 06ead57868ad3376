"""XTasC-Net's and MTPSL's modules: what their losses teach, and what they must leave alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
import tiny

from emu_perception.data import Batch, collate
from emu_perception.data.sample import Sample
from emu_perception.inference.model_file import save_model
from emu_perception.labels import load_label_set
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.training.builders import build_module
from emu_perception.training.multitask.pairs import METHODS
from emu_perception.training.multitask.partial import PartialModule
from emu_perception.training.multitask.transfer import TransferModule, disagreement
from emu_perception.training.run import build_network, describe_model

TASKS = ("semantic", "depth")


def module(
    partial: dict[str, Any] | None = None, weighting: dict[str, Any] | None = None, **transfer: Any
) -> Any:
    widths = [] if partial else [2, 4, 4]
    arguments = {"width": 4, "transfer_widths": widths, "unit": "metres"}
    config = tiny.config(
        Path("data"),
        Path("out"),
        model={"architecture": "xtasc", "backbone": "resnet10t", "arguments": arguments},
        multitask={
            "losses": {"depth": "l1"},
            "transfer": transfer,
            "partial": partial,
            "weighting": weighting or {},
        },
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
        direct, read = gradient(losses[source], dense.scales[0][target], dense.scales[0][source])
        assert direct == 0
        assert read > 0
        own = trained.network.decoders[target].predict.weight
        assert gradient(losses[source], own) == [0]
    # A task's loss is (1 - λ) direct + λ of what its prediction says about the other.
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
    assert after["depth"].item() == before["depth"]  # from depth, to the classes
    assert after["semantic"].item() != before["semantic"]


def test_void_pixels_have_no_part_in_transferred_losses() -> None:
    trained = module(loss="consistency", weight=0.5)
    given = batch("", "depth")
    for field, nothing in (("labels", 255), ("depth", 0)):
        given[field][:, :32] = nothing
        given[f"{field}_valid"][:, :32] = False
    shapes = {"semantic": (2, 13, 64, 64), "depth": (2, 1, 64, 64)}
    made = {task: torch.randn(shape, requires_grad=True) for task, shape in shapes.items()}
    trained.network.transfer = lambda read: {
        (source, target): made[target]
        for source, target in (("semantic", "depth"), ("depth", "semantic"))
    }
    dense = DenseOutputs(({task: torch.randn(shape) for task, shape in shapes.items()},), {})
    sum(trained.transfer_losses(dense, given).values()).backward()
    classes, depth = (made[task].grad.abs().sum((1, 3)) for task in TASKS)
    assert (classes[:, :32] == 0).all() and (classes[:, 32:] > 0).all()
    assert (depth[0, :32] == 0).all() and (depth[0, 32:] > 0).all()
    assert (depth[1] > 0).all()  # has no depth: what its classes say of it counts everywhere


def test_disagreement_by_hand() -> None:
    transferred = {
        ("depth", "semantic"): torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        ("semantic", "depth"): torch.tensor([[3.0], [8.0], [99.0]]),
    }
    direct = {
        "semantic": torch.tensor([[2.0, 0.0], [0.0, 1.0], [9.0, 1.0]]),
        "depth": torch.tensor([[2.0], [10.0], [50.0]]),
    }
    transferred, direct = (
        {key: value.T[None, :, None] for key, value in each.items()}
        for each in (transferred, direct)
    )
    network = SimpleNamespace(transfer=lambda read: transferred)
    valid = {task: torch.tensor([[[True, True, False]]]) for task in TASKS}
    found = {k: v.tolist() for k, v in disagreement(network, direct, direct, valid).items()}
    assert found == {"semantic": [1, 2], "depth": [3, 12]}


def test_under_partial_labels_the_other_task_says_what_is_missing() -> None:
    trained = module(loss="consistency", weight=0.5, weighting={"name": "uncertainty"})
    given = batch("depth", "depth")
    torch.manual_seed(0)
    trained.training_step(given, 0).backward()
    assert trained.weighting.log_variance.grad[1] == 0  # nothing known about its progress
    assert trained.weighting.log_variance.grad[0] != 0
    for decoder in trained.network.decoders.values():
        assert decoder.predict.weight.grad.abs().sum() > 0


def test_a_judge_learns_from_labels_and_measures_others(tmp_path: Path) -> None:
    trained = module(loss="labels", weight=0.5)
    given = batch("", "")
    given["depth"][0, 0, 0], given["depth_valid"][0, 0, 0] = 0.0, False
    read = trained.certain(given)
    assert read["depth"][0, 0, 0, 0] == 10  # the farthest there is
    assert (read["depth"][0, 0, 1] == given["depth"][0, 1]).all()
    assert (read["semantic"].argmax(1) == given["labels"]).all()
    dense = trained.network.dense(trained.normalization(given["image"]))
    sum(trained.extra_terms(dense, given).values()).backward()
    reached = {name for name, p in trained.named_parameters() if p.grad is not None}
    assert reached == {n for n, _ in trained.named_parameters() if ".transfers." in n}
    judge = tmp_path / "judge.safetensors"
    save_model(judge, trained.network, trained.spec)
    judged = module(loss="consistency", judge=str(judge)).eval()
    judged.on_fit_start()
    judged.on_validation_epoch_start()
    judged.examine(given)
    names = {"semantic", "depth", "judged_semantic", "judged_depth"}
    assert set(judged._disagreement) == names
    first = judged._disagreement["judged_depth"]
    judged.examine(given)
    torch.testing.assert_close(judged._disagreement["judged_depth"], 2 * first)


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


def test_a_regulariser_does_not_move_the_features_that_it_compares_with() -> None:
    arguments = {"widths": [4, 4, 8, 8], "consistency": 0.0, "regularization": 0.5}
    trained = module({"method": "mapping", "arguments": arguments})
    assert isinstance(trained, PartialModule)
    given = batch("depth", "semantic")
    plain = trained.partial.method.forward

    def gradients(detached: bool) -> list[torch.Tensor]:
        def forward(pair: Any, losses: Any, factors: Any) -> torch.Tensor:
            features = pair.features.detach() if detached else pair.features
            assert pair.features.requires_grad
            return plain(pair._replace(features=features), losses, factors)

        trained.partial.method.forward = forward
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
    # Without training nothing is trusted: trust everything.
    arguments = {"confidence": 0.0, "tolerance": 1e9}
    arguments = arguments if method == "perturbation" else {"widths": widths}
    trained = module({"method": method, "arguments": arguments})
    given = batch("depth", "semantic", "depth")
    torch.manual_seed(0)
    dense = trained.network.dense(trained.normalization(given["image"]))
    (term,) = trained.extra_terms(dense, given).values()
    assert torch.isfinite(term)
    # The term itself teaches the encoder and both decoders.
    parts = (trained.network.encoder, *trained.network.decoders.values())
    for part in parts:
        found = torch.autograd.grad(term, list(part.parameters()), retain_graph=True)
        assert all(torch.isfinite(each).all() for each in found)
        assert sum(each.abs().sum() for each in found) > 0


def test_a_closer_view_leaves_the_running_statistics_alone() -> None:
    trained = module({"method": "perturbation"})
    given = batch("depth", "semantic")
    dense = trained.network.dense(trained.normalization(given["image"]))
    before = {name: value.clone() for name, value in trained.network.named_buffers()}
    momenta = [getattr(each, "momentum", None) for each in trained.network.modules()]
    trained.extra_terms(dense, given)
    after = dict(trained.network.named_buffers())
    kept = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    assert [getattr(each, "momentum", None) for each in trained.network.modules()] == momenta
    trained.network.dense(trained.normalization(given["image"]))
    assert any(not torch.equal(before[name], after[name]) for name in kept)


def test_a_task_s_loss_is_the_mean_over_all_images_of_each_image_s_own() -> None:
    trained = module({"method": "supervised"})
    given = batch("depth", "depth", "semantic", "", share=0.5)
    given["depth"][3, :, :48], given["depth_valid"][3, :, :48] = 0.0, False
    dense = trained.network.dense(trained.normalization(given["image"]))
    found = trained.task_losses(dense, given)
    # By hand: depth of the third and the fourth image, classes of all but the third.
    error = (dense.scales[0]["depth"][:, 0] - given["depth"]).abs()
    depth = [error[i][given["depth_valid"][i]].mean().item() for i in (2, 3)]
    assert found["depth"].item() == pytest.approx(sum(depth) / 4, rel=1e-4)
    scores = dense.scales[0]["semantic"]
    classes = torch.nn.functional.cross_entropy(scores[[0, 1, 3]], given["labels"][[0, 1, 3]])
    assert found["semantic"].item() == pytest.approx(classes.item() * 3 / 4, rel=1e-4)
    # A figure of a validation set is that of its labelled pixels.
    judged = trained.eval().task_losses(dense, given)
    assert judged["semantic"].item() == pytest.approx(classes.item(), rel=1e-4)


def test_supervision_alone_takes_no_second_view_unless_both_pass_the_norms() -> None:
    given = batch("depth", "semantic")
    apart = module({"method": "supervised"})
    joint = module({"method": "supervised", "joint_views": True})
    joint.network.load_state_dict(apart.network.state_dict())
    found = []
    for trained in (apart, joint):
        seen: list[int] = []
        trained.network.encoder.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(len(inputs[0]))
        )
        torch.manual_seed(0)
        dense = trained.dense(given)
        assert len(dense.shared) == 2
        assert trained.extra_terms(dense, given) == {}
        found.append((seen, dense.scales[0]["depth"]))
    assert [seen for seen, _ in found] == [[2], [4]]
    assert not torch.allclose(found[0][1], found[1][1])  # normalised by both views' statistics


def test_joint_views_pass_once_and_are_told_apart() -> None:
    arguments = {"confidence": 0.0, "tolerance": 1e9}
    trained = module({"method": "perturbation", "joint_views": True, "arguments": arguments})
    given = batch("depth", "semantic")
    passed: list[int] = []
    trained.network.encoder.register_forward_pre_hook(
        lambda _, inputs: passed.append(len(inputs[0]))
    )
    torch.manual_seed(0)
    dense = trained.dense(given)
    second = trained._view
    both = trained.network.dense(
        torch.cat([trained.normalization(given["image"]), second.image])
    ).scales[0]
    torch.testing.assert_close(dense.scales[0]["depth"], both["depth"][:2])
    torch.testing.assert_close(second.seen.scales[0]["depth"], both["depth"][2:])
    (term,) = trained.extra_terms(dense, given).values()
    assert term > 0 and passed == [4, 4]
    trained.training_step(given, 0).backward()


def test_the_semi_supervised_rival_weighs_its_terms_as_the_labels() -> None:
    partial = {"method": "perturbation", "arguments": {"confidence": 0.0, "tolerance": 1e9}}
    given = batch("depth", "depth")
    found = []
    for weight in (1.0, 0.1):
        weighting = {"weights": {"depth": weight}}
        trained = module(partial, weighting)
        torch.manual_seed(0)
        dense = trained.network.dense(trained.normalization(given["image"]))
        found.append(trained.extra_terms(dense, given)["perturbation"].item())
    assert found[1] == pytest.approx(0.1 * found[0], rel=1e-4)


def test_film_parameters_have_a_rate_and_a_schedule_of_their_own() -> None:
    partial = {"method": "mapping", "arguments": {"widths": [4, 4, 8, 8]}}
    trained = module({**partial, "film_learning_rate": 0.5, "film_halved_every": 7})
    encoder, heads, mapping, film = trained.optimizer_groups()
    method = trained.partial.method
    assert [id(p) for p in film["params"]] == [id(p) for p in method.film_parameters()]
    assert film["lr"] == 0.5
    chosen = {id(p) for p in film["params"]}
    shared = [id(p) for p in method.mapping.parameters() if id(p) not in chosen]
    assert [id(p) for p in mapping["params"]] == shared
    others = {id(p) for group in (encoder, heads) for p in group["params"]}
    assert others == {id(p) for p in trained.network.parameters()}
    *others, factor = trained.rate_factors(100)
    assert [factor(step) for step in (0, 6, 7, 14)] == [1, 1, 0.5, 0.25]
    assert [each(50) for each in others] == [pytest.approx(0.5**0.9)] * 3


def test_a_method_s_networks_learn_at_the_encoder_s_rate_or_at_their_own() -> None:
    partial = {"method": "mapping", "arguments": {"widths": [4, 4, 8, 8]}}
    trained = module(partial)
    encoder, heads, mapping = trained.optimizer_groups()
    assert mapping["lr"] == encoder["lr"] == 1e-3 < heads["lr"]
    assert {id(p) for p in mapping["params"]} == {id(p) for p in trained.partial.parameters()}
    assert module({**partial, "learning_rate": 0.25}).optimizer_groups()[2]["lr"] == 0.25
    assert len(module({"method": "perturbation"}).optimizer_groups()) == 2
    assert len(trained.rate_factors(100)) == 3


@pytest.mark.parametrize("method", ["mapping", "perturbation"])
def test_segdepthformer_trains_with_losses_between_tasks_too(method: str) -> None:
    arguments = {"confidence": 0.0, "tolerance": 1e9}
    arguments = arguments if method == "perturbation" else {"widths": [4, 4, 8]}
    config = tiny.config(
        Path("data"),
        Path("out"),
        model={"backbone": "resnet10t", "arguments": {"width": 8}},
        multitask={"partial": {"method": method, "weight": 3.0, "arguments": arguments}},
    )
    spec = describe_model(config, load_label_set("nyuv2_13"))
    trained: Any = build_module(config, spec, build_network(config, spec)).train()
    assert trained.leaves_parameters_unused == (method == "mapping")
    given = batch("depth", "semantic", "")
    torch.manual_seed(0)
    outputs = trained.outputs(given)
    terms = trained.terms(outputs, given)
    assert terms.keys() == {"cross_entropy", "depth_gaussian", method}
    # Two of the three images have classes: the mean is over all three.
    known = [0, 2]
    classes = torch.nn.functional.cross_entropy(outputs.logits[known], given["labels"][known])
    assert terms["cross_entropy"].item() == pytest.approx(classes.item() * 2 / 3, rel=1e-4)
    decoders = list(trained.network.decoders.parameters())
    found = torch.autograd.grad(terms[method], decoders, allow_unused=True, retain_graph=True)
    assert sum(each is not None and each.abs().sum() > 0 for each in found) > len(decoders) / 2
    trained.training_step(given, 0).backward()


def test_sparse_depth_only_supervises() -> None:
    trained = module({"method": "mapping", "arguments": {"widths": [4, 4, 8, 8]}})
    given = batch("semantic", "semantic", share=0.05)
    dense = trained.network.dense(trained.normalization(given["image"]))
    (term,) = trained.extra_terms(dense, given).values()
    assert term == 0
    assert trained.task_losses(dense, given)["depth"] > 0
    (term,) = trained.extra_terms(dense, batch("semantic", "semantic")).values()
    assert term > 0
