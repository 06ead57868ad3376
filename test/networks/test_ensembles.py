"""Methods with members: shapes, folding, what samples and what does not."""

import pytest
import torch

from emu_perception.networks.architectures import build_network
from emu_perception.networks.ensembles import (
    BatchedEnsemble,
    DeepEnsemble,
    DeepSubEnsemble,
    MonteCarloDropout,
)
from emu_perception.networks.segdepthformer import SegDepthFormer

CLASSES = 4


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def awaken(network: torch.nn.Module) -> torch.nn.Module:
    """Give the batch-norms statistics that a fold must not lose."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 1.3)
            torch.nn.init.normal_(module.weight)
    return network.eval()


@pytest.mark.parametrize("architecture", ["deep_ensemble", "deep_sub_ensemble"])
@pytest.mark.parametrize("tasks", [("semantic", "depth"), ("depth",)])
def test_members_lead_and_folding_changes_nothing(
    image: torch.Tensor, architecture: str, tasks: tuple[str, ...]
) -> None:
    network = build_network(
        architecture, backbone="mit_b0", classes=CLASSES, tasks=tasks, members=3, width=16
    )
    awaken(network)
    with torch.inference_mode():
        raw, folded = network(image), network.fold()(image)
    assert raw["depth"].shape == (3, 2, 2, 16, 24)
    assert ("semantic" in raw) == ("semantic" in tasks)
    for a, b in zip(raw.values(), folded.values()):
        if a is not None:
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-4 * (a.max() - a.min())
    assert not torch.allclose(raw["depth"][0], raw["depth"][1])


def test_sub_ensemble_runs_one_pair_on_demand(image: torch.Tensor) -> None:
    network = DeepSubEnsemble("mit_b0", CLASSES, members=3, width=16).eval()
    with torch.inference_mode():
        stacked, second = network(image), network(image, member=1)
    assert torch.equal(stacked["semantic"][1], second["semantic"])
    assert torch.equal(stacked["depth"][1], second["depth"])


def test_a_step_of_a_sub_ensemble_reaches_the_encoder_and_one_pair(image: torch.Tensor) -> None:
    network = DeepSubEnsemble("mit_b0", CLASSES, members=3, width=16).train()
    raw = network(image, member=2)
    (raw["semantic"].sum() + raw["depth"].sum()).backward()
    assert all(p.grad is None for m in network.members[:2] for p in m.parameters())
    assert all(p.grad is not None for p in network.members[2].parameters())
    assert next(network.encoder.parameters()).grad is not None


def test_only_dropout_samples(image: torch.Tensor) -> None:
    network = MonteCarloDropout("mit_b0", CLASSES, samples=3, width=16, dropout=0.5, drop_path=0.3)
    awaken(network)
    sampling = [name for name, module in network.named_modules() if module.training]
    kinds = {type(network.get_submodule(name)) for name in sampling}
    assert kinds == {torch.nn.Dropout, torch.nn.Dropout2d}
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.inference_mode():
        raw = network(image)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert raw["semantic"].shape == (3, 2, CLASSES, 16, 24)
    assert not torch.equal(raw["semantic"][0], raw["semantic"][1])


def test_folded_dropout_samples_the_same(image: torch.Tensor) -> None:
    network = awaken(MonteCarloDropout("mit_b0", CLASSES, samples=2, width=16, dropout=0.5))
    folded = network.fold().eval()
    with torch.inference_mode():
        torch.manual_seed(7)
        a = network(image)
        torch.manual_seed(7)
        b = folded(image)
    for x, y in zip(a.values(), b.values(), strict=True):
        assert (x - y).abs().max() <= 1e-4 * (x.max() - x.min())


def test_dropout_takes_the_weights_of_the_network_trained(image: torch.Tensor) -> None:
    trained = awaken(SegDepthFormer("mit_b0", CLASSES, width=16, dropout=0.2))
    sampler = MonteCarloDropout("mit_b0", CLASSES, samples=5, width=16, dropout=0.2)
    sampler.load_state_dict(trained.state_dict())
    sampler.eval()
    assert sampler.train()(image)["semantic"].shape == (2, CLASSES, 16, 24)
    sampler.eval()
    assert sampler(image[:1])["semantic"].shape[0] == 5


@pytest.mark.parametrize("kind", ["deep_ensemble", "deep_sub_ensemble", "monte_carlo_dropout"])
def test_there_must_be_a_member(kind: str) -> None:
    name = "samples" if kind == "monte_carlo_dropout" else "members"
    with pytest.raises(ValueError, match="at least one"):
        build_network(kind, backbone="mit_b0", classes=CLASSES, width=16, **{name: 0})


def test_members_may_be_networks_of_any_kind(image: torch.Tensor) -> None:
    tasks = ("semantic", "normals", "edges")
    network = build_network(
        "deep_ensemble", member="padnet", members=2, backbone="resnet10t", classes=CLASSES,
        tasks=tasks, width=8,
    ).eval()  # fmt: skip
    with torch.inference_mode():
        raw, folded = network(image), network.fold()(image)
    assert raw["normals"].shape == (2, 2, 3, 64, 96) and raw["edges"].shape == (2, 2, 2, 64, 96)
    assert "depth" not in raw and not network.depth_variance
    assert all(torch.equal(raw[task], folded[task]) for task in raw)


def test_split_uncertainty_has_a_channel_more_per_task(image: torch.Tensor) -> None:
    network = awaken(SegDepthFormer("mit_b0", CLASSES, width=16, split_uncertainty=True))
    with torch.inference_mode():
        raw, folded = network(image), network.fold()(image)
    assert raw["semantic"].shape == (2, CLASSES + 1, 16, 24) and raw["depth"].shape == (
        2,
        3,
        16,
        24,
    )
    for a, b in zip(raw.values(), folded.values(), strict=True):
        assert (a - b).abs().max() <= 1e-4 * (a.max() - a.min())
    plain = SegDepthFormer("mit_b0", CLASSES, width=16)
    more = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == 2 * (16 + 1)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # on a CPU
def test_members_in_one_pass_say_the_same(image: torch.Tensor) -> None:
    members = [SegDepthFormer("mit_b0", CLASSES, width=16) for _ in range(2)]
    folded = awaken(DeepEnsemble(members)).fold()
    assert BatchedEnsemble.serves(folded) and not BatchedEnsemble.serves(members[0])
    with torch.inference_mode():
        one_by_one, at_once = folded(image[:1]), BatchedEnsemble(folded)(image[:1])
    for a, b in zip(one_by_one.values(), at_once.values(), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-4 * (a.max() - a.min())
