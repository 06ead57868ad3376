"""Adaptation to a domain without labels: whose gradient goes where, and a run."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("lightning")
import tiny

from emu_perception.experiments.study_config import StudyConfig, Unit
from emu_perception.inference.model_file import load_model
from emu_perception.labels import load_label_set
from emu_perception.networks.discriminator import Discriminator
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.resources import find_resource
from emu_perception.training import run
from emu_perception.training.config import TrainConfig
from emu_perception.training.config_file import load_config
from emu_perception.training.data_module import DataModule
from emu_perception.training.multitask.adaptation import AdversarialModule

TASKS = ["semantic", "depth"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


def settings(scenes: Path, out: Path, **changes: object) -> TrainConfig:
    source = {"name": "scenes", "root": str(scenes), "split": "train"}
    source["options"] = {"count": 2, "size": [32, 64]}
    target = source | {"split": "val", "target": True, "size": [40, 80]}
    model = {"architecture": "densemtl", "backbone": "resnet10t", "tasks": TASKS}
    values = {
        "model": model | {"arguments": {"dilated": False, "width": 0.25}, "input_size": [32, 64]},
        "data": {
            "train": [source, target],
            "crop": [32, 64],
            "batch_size": 4,
            "augmentation": {"scale": [1.0, 1.2], "scale_changes": "nothing"},
        },
        "multitask": {"adaptation": {}},
        "trainer": {"epochs": 1},
    }
    for group, changed in changes.items():
        values[group] = values.get(group, {}) | changed
    return tiny.config(scenes, out, **values)


def test_the_discriminator_is_one_lipschitz_layer_by_layer() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(3, (8, 8, 8, 8)).train()
    for _ in range(30):  # of the power method, one step each
        verdict = discriminator(torch.randn(2, 3, 64, 96))
    assert verdict.shape == (2, 1, 2, 3)
    for layer in discriminator.layers[::2]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(
            1, abs=0.05
        )


def adversarial(config: TrainConfig) -> AdversarialModule:
    spec = run.describe_model(config, load_label_set("camvid"))
    return AdversarialModule(config, spec, run.build_network(config, spec))


def test_whose_gradient_goes_where(scenes: Path, tmp_path: Path) -> None:
    module = adversarial(settings(scenes, tmp_path))
    network = module.network
    assert sorted(module.discriminators[0]) == sorted(TASKS) and len(module.discriminators) == 2
    image = torch.randn(4, 3, 32, 64)
    batch = {"image": image, "target": torch.tensor([True, False, True, False])}
    dense = network.dense(image)
    # Whole batches pass through batch-norm: what an image gives is asked of the raw maps.
    for maps in dense.scales:
        for raw in maps.values():
            raw.retain_grad()
    terms = module.extra_terms(dense, batch)
    assert terms.keys() == {
        f"{kind}_{t}" for kind in ("adversarial", "discriminator") for t in TASKS
    }

    def gradients() -> tuple[list[float], bool]:
        by_image = sum(
            raw.grad.abs().sum((1, 2, 3)) if raw.grad is not None else torch.zeros(4)
            for maps in dense.scales
            for raw in maps.values()
        )
        judges = any(p.grad is not None for p in module.discriminators.parameters())
        return by_image.tolist(), judges

    (terms["adversarial_semantic"] + terms["adversarial_depth"]).backward(retain_graph=True)
    by_image, judges = gradients()
    assert by_image[0] > 0 and by_image[2] > 0  # the target's are to change,
    assert by_image[1] == by_image[3] == 0 and not judges  # nothing else is
    module.zero_grad()
    for maps in dense.scales:
        for raw in maps.values():
            raw.grad = None
    (terms["discriminator_semantic"] + terms["discriminator_depth"]).backward()
    by_image, judges = gradients()
    assert by_image == [0, 0, 0, 0] and judges
    assert all(p.grad is None for p in network.parameters())
    groups = module.optimizer_groups()
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    assert sum(sizes) == sum(p.numel() for p in module.parameters())
    assert groups[2]["lr"] == 1e-4


class Judge(nn.Module):
    """The mean of a map, minus a half: verdicts that can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.tensor(-0.5))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.gain * maps.mean((1, 2, 3)) + self.offset


def judged_by_hand(scenes: Path, out: Path) -> tuple[AdversarialModule, list, dict]:
    """A module whose discriminators are `Judge`s, with raw maps of two images of each domain."""
    module = adversarial(settings(scenes, out))
    for maps in module.discriminators:
        for task in TASKS:
            maps[task] = Judge()
    torch.manual_seed(0)
    # The target's depth is larger than the source's, its classes are less certain.
    unit, target = module.network.unit, torch.tensor([True, False, True, False])
    metres = torch.where(target, 8.0, 2.0)[:, None, None, None].expand(4, 1, 4, 8)
    scores = torch.randn(4, 11, 4, 8) * torch.where(target, 1.0, 3.0)[:, None, None, None]
    raw = [
        {"semantic": scores.clone().requires_grad_(), "depth": unit.encode(metres).requires_grad_()}
        for _ in module.discriminators
    ]
    return module, raw, {"image": torch.zeros(4, 3, 4, 8), "target": target}


def verdicts(module: AdversarialModule, raw: list, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """How much the target's and the source's predictions look like the target's, (2, 2) each."""
    with torch.no_grad():
        found = torch.stack(
            [judges[task](module.judged(task, maps[task]))
             for judges, maps in zip(module.discriminators, raw)]
        )  # fmt: skip
    return found[:, ::2], found[:, 1::2]


def test_the_network_learns_to_look_like_the_source(scenes: Path, tmp_path: Path) -> None:
    module, raw, batch = judged_by_hand(scenes, tmp_path)
    for task in TASKS:
        target, source = verdicts(module, raw, task)
        term = module.extra_terms(DenseOutputs(tuple(raw), {}), batch)[f"adversarial_{task}"]
        # -ln of the probability of "source", the mean over 2 tasks x 2 scales, weight 0.005.
        expected = 0.005 * F.softplus(target).mean(1).sum() / 4
        assert term.item() == pytest.approx(expected.item(), rel=1e-5)
        term.backward()
        with torch.no_grad():
            for maps in raw:
                size = maps[task].abs().mean() / maps[task].grad.abs().mean()
                maps[task] -= 1e-2 * size * maps[task].grad
        after, unchanged = verdicts(module, raw, task)
        assert (after < target).all() and torch.equal(unchanged, source)


def test_discriminators_learn_to_tell_the_domains(scenes: Path, tmp_path: Path) -> None:
    module, raw, batch = judged_by_hand(scenes, tmp_path)

    def terms() -> dict[str, torch.Tensor]:
        found = module.extra_terms(DenseOutputs(tuple(raw), {}), batch)
        return {task: found[f"discriminator_{task}"] for task in TASKS}

    for task, term in terms().items():
        target, source = verdicts(module, raw, task)
        expected = (F.softplus(-target) + F.softplus(source)).mean(1).sum() / 4
        assert term.item() == pytest.approx(expected.item(), rel=1e-5)
    learnt = torch.optim.SGD(module.discriminators.parameters(), lr=2.0)
    for _ in range(50):
        learnt.zero_grad()
        torch.stack(list(terms().values())).sum().backward()
        learnt.step()
    for task in TASKS:
        later, earlier = verdicts(module, raw, task)
        assert (later > 0).all() and (earlier < 0).all()


def test_each_domain_has_statistics_of_its_own(scenes: Path, tmp_path: Path) -> None:
    module = adversarial(settings(scenes, tmp_path))
    target = torch.tensor([True, False, False, True])
    image = torch.rand(4, 3, 32, 64) * torch.where(target, 255.0, 60.0)[:, None, None, None]
    torch.manual_seed(0)  # of the dropout
    found = module.dense({"image": image, "target": target}).scales[1]["semantic"]
    torch.manual_seed(0)
    source = module.network.dense(module.normalization(image[~target])).scales[1]["semantic"]
    torch.testing.assert_close(found[~target], source)
    # A single image would have none: then both go together.
    target = torch.tensor([True, False, False, False])
    torch.manual_seed(0)
    found = module.dense({"image": image, "target": target}).scales[1]["semantic"]
    torch.manual_seed(0)
    both = module.network.dense(module.normalization(image)).scales[1]["semantic"]
    torch.testing.assert_close(found, both)


def test_discriminators_are_not_clipped_and_keep_a_schedule_of_their_own(
    scenes: Path, tmp_path: Path
) -> None:
    schedule = {"schedule": "constant"}
    module = adversarial(settings(scenes, tmp_path, optimizer=schedule))
    optimizer = torch.optim.SGD(module.optimizer_groups())
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.full_like(group["params"][0], 3.0)
    module.configure_gradient_clipping(optimizer, 0.5)
    *network, judge = (group["params"][0].grad for group in optimizer.param_groups)
    assert torch.cat([g.flatten() for g in network]).norm().item() == pytest.approx(0.5, rel=1e-4)
    assert (judge == 3).all()
    assert [factor(50) for factor in module.rate_factors(100)] == [1, 1, 0.5**0.9]


def test_a_batch_of_one_domain_adapts_nothing(scenes: Path, tmp_path: Path) -> None:
    module = adversarial(settings(scenes, tmp_path))
    image = torch.randn(2, 3, 32, 64)
    batch = {"image": image, "target": torch.tensor([False, False])}
    assert module.extra_terms(module.network.dense(image), batch) == {}


def test_training_never_sees_a_label_of_the_target(scenes: Path, tmp_path: Path) -> None:
    config = settings(scenes, tmp_path / "run")
    data = DataModule(config.data, config.model.tasks, config.model.input_size, 0)
    (batch,) = list(data.train_dataloader())
    assert batch["target"].sum() == 2
    assert torch.equal(batch["has_labels"], ~batch["target"])
    assert torch.equal(batch["has_depth"], ~batch["target"])
    file = run.train(config, progress=False)
    found = load_model(file)
    assert not any("discriminator" in name for name in found.network.state_dict())
    assert found.spec.metrics["training"] == {"epochs": 1, "steps": 1}
    assert all(torch.isfinite(value).all() for value in found.network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multitask": {"adaptation": None}}, "only multitask.adaptation learns of it"),
        ({"data": {"train": [{"name": "scenes", "split": "train"}]}}, "of two domains"),
    ],
)
def test_what_does_not_suit_is_refused(
    scenes: Path, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        settings(scenes, tmp_path, **change)


def test_the_rows_of_the_study() -> None:
    study = load_config(
        find_resource("config", "studies", "adaptation_cityscapes.yaml"), StudyConfig
    )
    runs = {row.name: study.training(row, Unit(0)) for row in study.rows}
    targets = {name: {d.target for d in each.data.train} for name, each in runs.items()}
    assert targets["source only"] == targets["oracle"] == {False}
    adapted = [name for name in runs if "adapted" in name]
    assert len(adapted) == 3 and all(targets[name] == {True, False} for name in adapted)
    names = {name: {d.name for d in each.data.train} for name, each in runs.items()}
    assert names["source only"] == {"scenes"} and names["oracle"] == {"folder"}
    samples = {each.data.samples_per_epoch * (0.5 if name in adapted else 1)
               for name, each in runs.items()}  # fmt: skip
    assert len(samples) == 1  # each sees as many labelled images
    losses = {each.multitask.losses.get("depth") for each in runs.values()
              if "depth" in each.model.tasks}  # fmt: skip
    assert losses == {"berhu_valid"}  # of sparse depth too, and the same for all
