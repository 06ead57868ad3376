"""Training of several tasks: losses, masks, and a run of a small network from end to end."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from typer.testing import CliRunner

pytest.importorskip("lightning")
import tiny

from emu_perception.cli import app
from emu_perception.experiments import assess, table
from emu_perception.inference.model_file import LoadedModel, load_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.networks.architectures import register_architecture
from emu_perception.networks.densemtl import DenseMTL
from emu_perception.networks.depth_unit import DEPTH_UNITS
from emu_perception.networks.encoder import build_encoder, feature_widths
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.tasks import TASKS, DenseTask
from emu_perception.training import run, validation
from emu_perception.training.builders import register_module
from emu_perception.training.config_file import load_config
from emu_perception.training.data_config import DataConfig, DatasetConfig
from emu_perception.training.data_module import open_dataset, training_set
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.multitask import task_losses
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.multitask.task_losses import find_loss
from emu_perception.training.settings import ConfigError
from emu_perception.training.weighting import build_weighting

ALL = ["semantic", "depth", "normals", "edges"]


class Pointwise(MultiTaskNetwork):
    """One convolution per task."""

    def __init__(
        self,
        backbone: str,
        classes: int | None,
        tasks: tuple[str, ...],
        depth_variance: bool = False,
    ) -> None:
        super().__init__(tasks, classes, "normalized_inverse", depth_variance)
        self.encoder = build_encoder(backbone)
        width = feature_widths(self.encoder)[0]
        self.outputs = nn.ModuleDict({t: nn.Conv2d(width, n, 1) for t, n in self.channels.items()})

    def dense(self, image: torch.Tensor) -> DenseOutputs:
        features = self.encoder(image)
        maps = {task: output(features[0]) for task, output in self.outputs.items()}
        return DenseOutputs((maps, maps), dict.fromkeys(maps, features[0]), features[-1])

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        yield self.outputs["depth"]


register_architecture("pointwise")(Pointwise)
register_module("pointwise", MultiTaskModule)


@pytest.mark.parametrize("unit", DEPTH_UNITS.values(), ids=lambda u: u.name)
def test_depth_units_are_inverted(unit: object) -> None:
    metres = torch.tensor([0.5, 1.0, 20.0, 99.0])
    assert torch.allclose(unit.decode(unit.encode(metres)), metres, rtol=1e-5)
    assert torch.isfinite(unit.decode(torch.tensor([-1.0, 0.0]))).all()


def test_berhu_by_hand() -> None:
    target = torch.zeros(1, 2, 2)
    prediction = torch.tensor([[[[10.0, 1.0], [2.0, 50.0]]]])
    valid = torch.tensor([[[True, True], [True, False]]])
    # c = 0.2 x 10; (10^2 + 2^2) / 4 + 1 + 2 = 29.
    assert find_loss("depth")(prediction, target, valid).item() == 7.25
    mean = find_loss("depth", "berhu_valid")(prediction, target, valid).item()
    assert mean == pytest.approx(29 / 3)
    # An image without any depth, such as one of another domain, takes no weight from the others.
    both = [torch.cat([x, x]) for x in (prediction, target)]
    alone = torch.cat([valid, torch.zeros_like(valid)])
    assert find_loss("depth")(*both, alone).item() == 7.25


def test_cosine_and_balanced_cross_entropy_by_hand() -> None:
    # 60 degrees, any length: 1 - 0.5; the opposite: 2; the third has no label.
    said = torch.tensor([[3.0, 0.0, 3**1.5], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    truth = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    maps = [x.T[None, :, None] for x in (said, truth)]
    valid = torch.tensor([[[True, True, False]]])
    assert find_loss("normals")(*maps, valid).item() == pytest.approx((0.5 + 2) / 2)
    # p(edge) = 3/4 everywhere: -ln 3/4 at the edge, -ln 1/4 twice beside it, and one unknown.
    scores = torch.tensor([0.0, np.log(3.0)])[None, :, None, None].expand(1, 2, 1, 4).float()
    edges = torch.tensor([[[1, 0, 0, 255]]])
    plain = (np.log(4 / 3) + 2 * np.log(4)) / 3
    assert find_loss("edges")(scores, edges, edges < 2).item() == pytest.approx(plain)
    balanced = (0.95 * np.log(4 / 3) + 2 * 0.05 * np.log(4)) / (0.95 + 2 * 0.05)
    found = find_loss("edges", "balanced_cross_entropy")(scores, edges, edges < 2).item()
    assert found == pytest.approx(balanced)


def test_a_loss_without_labels_is_zero_and_has_a_gradient_of_zero() -> None:
    shapes = {"semantic": 5, "depth": 1, "normals": 3, "edges": 2}
    for task, channels in shapes.items():
        prediction = torch.randn(2, channels, 4, 6, requires_grad=True)
        kind = torch.int64 if task in ("semantic", "edges") else torch.float32
        target = torch.zeros((2, 3, 4, 6) if task == "normals" else (2, 4, 6), dtype=kind)
        loss = find_loss(task)(prediction, target, torch.zeros(2, 4, 6, dtype=torch.bool))
        loss.backward()
        assert loss.item() == 0 and (prediction.grad == 0).all()


def test_unknown_losses_and_weightings_are_named() -> None:
    with pytest.raises(ValueError, match="unknown loss 'l7' of 'depth'; known: berhu"):
        find_loss("depth", "l7")
    with pytest.raises(ValueError, match=r"unknown weighting 'fair'; known: .*fixed"):
        build_weighting("fair", ALL, {})
    fixed = build_weighting("fixed", ["depth", "edges"], {"depth": 3.0})
    assert fixed({"depth": torch.tensor(2.0), "edges": torch.tensor(1.0)}, []).item() == 7


def test_a_task_without_a_loss_is_named() -> None:
    with pytest.raises(ValueError, match="task 'flow' has no loss: add one with register_loss"):
        find_loss("flow")


def config(tmp_path: Path, tasks: list[str], **changes: object) -> object:
    scenes = {"name": "scenes", "root": str(tmp_path / "scenes"), "split": "train"}
    scenes["options"] = {"count": 2, "size": [64, 96], "scene": "room"}
    return tiny.config(
        tmp_path,
        tmp_path / "run",
        model={
            "architecture": "pointwise",
            "tasks": tasks,
            "arguments": {"depth_variance": "depth" in tasks},
            "backbone": "resnet10t",
        },
        data={"train": [scenes], "validation": scenes, "crop": [64, 96]},
        trainer={"epochs": 1},
        **changes,
    )


def test_four_tasks_from_training_to_figures(tmp_path: Path) -> None:
    settings = config(
        tmp_path, ALL, multitask={"weighting": {"weights": {"semantic": 100, "normals": 100}}}
    )
    file = run.train(settings, progress=False)
    model = load_model(file)
    figures = model.spec.metrics["scenes train"]
    assert {"loss", "miou", "rmse", "mean_angular_error", "edge_f1"} <= figures.keys()
    predictor = Predictor(model, "cpu", engine="pytorch")
    found = predictor.predict(np.zeros((64, 96, 3), np.uint8))
    assert found.normals.shape == (64, 96, 3) and found.edges.shape == (64, 96)
    assert np.allclose(np.linalg.norm(found.normals, axis=2), 1, atol=1e-5)
    assert found.depth_variance.shape == (64, 96)
    dataset = open_dataset(settings.data.train[0])
    scored = assess.score(predictor, dataset, replicates=0)
    # The validation is at the network's size, and so are these scenes.
    angle = scored["normals.mean_angular_error"]
    assert angle == pytest.approx(figures["mean_angular_error"], rel=1e-3)
    assert scored["edges.f1"] == pytest.approx(figures["edge_f1"], abs=1e-3)
    assert scored["semantic.miou"] == pytest.approx(figures["miou"], abs=1e-3)


def test_normals_are_judged_by_what_they_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("images", "depth"):
        (tmp_path / folder).mkdir()
    waves = (5000 + 100 * np.sin(np.arange(96) / 2)) * np.ones((64, 1))
    cv2.imwrite(str(tmp_path / "depth" / "A_0.png"), waves.astype(np.uint16))
    cv2.imwrite(str(tmp_path / "images" / "A_0.png"), np.zeros((64, 96, 3), np.uint8))
    (tmp_path / "intrinsics.json").write_text('{"A_0": [60, 60, 47.5, 31.5]}')
    tasks = ("depth", "normals")
    spec = ModelSpec(
        architecture="pointwise", backbone="resnet10t", tasks=tasks, input_size=(64, 96)
    )
    predictor = Predictor(LoadedModel(spec.build().eval(), spec, Path()), "cpu", engine="pytorch")
    figures = set()
    for window in (5, 15):
        config = DatasetConfig(name="ddad", root=str(tmp_path), split="all", normals_window=window)
        trained = training_set(DataConfig(train=[config], crop=(64, 96)), tasks, 0)[0]
        said = predictor.predict(trained.image, trained.intrinsics, maps={"normals"}).normals
        known = trained.normals.any(2)
        cosine = (said * trained.normals).sum(2)[known].clip(-1, 1)
        found = assess.score(predictor, open_dataset(config), replicates=0)
        angle = found["normals.mean_angular_error"]
        assert angle == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=0.02)
        figures.add(round(angle, 1))
    assert len(figures) == 2  # the windows differ in what they take for the truth
    monkeypatch.setattr(table, "compare", lambda asked, **_: [{"name": str(asked.data)}])
    arguments = ["evaluate", "-m", "m", "-d", "ddad", "--root", str(tmp_path), "--split", "all"]
    shown = tmp_path / "shown.md"
    arguments += ["--normals-window", "15", "--markdown", str(shown)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert "normals_window=15" in shown.read_text()


def test_tasks_that_the_data_cannot_supervise_are_refused(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    split = {"name": "camvid", "root": str(data), "split": "train"}
    for part in ("train", "val", "test"):
        shutil.copytree(data / "rgb", data / part / "images")
        shutil.copytree(data / "label13", data / part / "labels")
    settings = tiny.config(
        data,
        tmp_path / "run",
        model={"architecture": "pointwise", "tasks": ALL, "arguments": {}},
        data={"train": [split]},
    )
    with pytest.raises(
        ValueError, match=r"model.tasks contains depth, normals.*camvid train has semantic"
    ):
        run.train(settings, progress=False)


def test_deep_supervision_is_the_mean_over_the_scales_of_a_task(tmp_path: Path) -> None:
    settings = config(tmp_path, ["depth", "edges"], multitask={"losses": {"depth": "l1"}})
    spec = run.describe_model(settings, None)
    module = MultiTaskModule(settings, spec, spec.build())
    target = module.network.unit.encode(torch.tensor(5.0))
    fine, coarse = (
        {"depth": torch.full((1, 2, *size), target.item() + off)}
        for size, off in (((4, 6), 2.0), ((2, 3), 30.0))
    )
    # p(edge) = 1/4 everywhere; edges are predicted at the fine scale only.
    fine["edges"] = torch.tensor([np.log(3.0), 0.0])[None, :, None, None].expand(1, 2, 4, 6).float()
    batch = {
        "image": torch.zeros(1, 3, 4, 6),
        "depth": torch.full((1, 4, 6), 5.0),
        "depth_valid": torch.ones(1, 4, 6, dtype=torch.bool),
        "edges": torch.ones(1, 4, 6, dtype=torch.int64),
        "edges_valid": torch.ones(1, 4, 6, dtype=torch.bool),
    }
    found = module.task_losses(DenseOutputs((fine, coarse), {}), batch)
    assert found["depth"].item() == pytest.approx((2 + 30) / 2, rel=1e-4)
    assert found["edges"].item() == pytest.approx(np.log(4))


@pytest.mark.parametrize(("aligned", "expected"), [(False, (0 + 1) / 2), (True, (0 + 4 / 3) / 2)])
def test_coarse_maps_are_upsampled_as_the_network_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aligned: bool, expected: float
) -> None:
    assert DenseMTL.aligned_corners and not MultiTaskNetwork.aligned_corners
    monkeypatch.setattr(Pointwise, "aligned_corners", aligned)
    settings = config(tmp_path, ["depth"], multitask={"losses": {"depth": "l1"}})
    spec = run.describe_model(settings, None)
    module = MultiTaskModule(settings, spec, spec.build())
    target = module.network.unit.encode(torch.tensor(5.0))
    # From 2 to 4 columns: 0, 1, 3, 4 between edges, 0, 4/3, 8/3, 4 between corners.
    off = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2).expand(1, 2, 1, 2)
    batch = {
        "image": torch.zeros(1, 3, 1, 4),
        "depth": torch.full((1, 1, 4), 5.0),
        "depth_valid": torch.tensor([[[True, True, False, False]]]),
    }
    found = module.task_losses(DenseOutputs(({"depth": target + off},), {}), batch)
    assert found["depth"].item() == pytest.approx(expected, abs=1e-3)


def test_a_student_takes_the_registered_losses_of_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = DenseTask("flow", "direction", "flow", 3, "flow.error", False, "flow", "vectors")
    monkeypatch.setitem(TASKS, "flow", flow)
    monkeypatch.setitem(task_losses._LOSSES, "flow", {"l1": find_loss("normals", "l1")})
    monkeypatch.setitem(validation._METRICS, "flow", validation.f1("flow_f1"))
    named = {"edges": "balanced_cross_entropy"}
    settings = config(tmp_path, ["edges", "normals", "flow"], multitask={"losses": named})
    spec = run.describe_model(settings, None)
    module = SupervisedModule(settings, spec, spec.build())  # as students are trained by labels
    torch.manual_seed(0)
    raw = {"edges": torch.randn(2, 2, 4, 6), "normals": torch.randn(2, 3, 4, 6)}
    raw["flow"] = raw["normals"]
    valid = torch.rand(2, 4, 6) > 0.3
    batch = {f"{task}_valid": valid for task in raw}
    batch |= {"edges": torch.randint(0, 2, (2, 4, 6))}
    batch |= dict.fromkeys(("normals", "flow"), F.normalize(torch.randn(2, 3, 4, 6), dim=1))
    found = module.label_terms(module.activate(raw, (4, 6)), batch)
    for task, name in (("edges", named["edges"]), ("normals", "cosine"), ("flow", "l1")):
        expected = find_loss(task, name)(raw[task], batch[task], valid)
        assert found[task].item() == pytest.approx(expected.item()), task
    assert found["flow"].item() != pytest.approx(found["normals"].item())


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    values = tiny.values(tmp_path, tmp_path, model={"architecture": "segdepthforme"})
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no 'segdepthforme'; known: .*segdepthformer"):
        load_config(file)
