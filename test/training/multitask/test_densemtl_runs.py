"""DenseMTL from training to figures, as a student, and in the engines."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

pytest.importorskip("lightning")
from emu_perception.cli import app
from emu_perception.inference.model_file import LoadedModel, load_model, save_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.resources import find_resource
from emu_perception.training import run
from emu_perception.training.config import TrainConfig
from emu_perception.training.config_file import load_config, read_values


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(out: Path, scenes: Path) -> dict:
    """The shipped configuration with a few small scenes."""
    path = find_resource("config", "train", "scenes", "densemtl_sdn.yaml")
    values = read_values(path)
    for split in (values["data"]["train"][0], values["data"]["validation"]):
        split |= {"root": str(scenes), "options": {"count": 4, "size": [64, 96]}}
    values["data"] |= {"crop": [64, 96], "batch_size": 2, "workers": 0}
    values["model"] |= {"backbone": "resnet10t", "input_size": [64, 96]}
    values["model"]["arguments"]["width"] = 0.25
    values["trainer"] = {"epochs": 1, "accelerator": "cpu", "devices": 1}
    return values | {"output": str(out)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("densemtl")
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(small(folder / "run", scenes)), encoding="utf-8")
    result = CliRunner().invoke(app, ["train", "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder / "run" / "model.safetensors"


def test_emu_evaluate_scores_three_tasks(trained: Path, scenes: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "-m", str(trained), "-d", "scenes", "--split", "val"]
    arguments += ["--root", str(scenes), "--option", "count=4", "--option", "size=[64, 96]"]
    figures = tmp_path / "figures.json"
    result = CliRunner().invoke(
        app, [*arguments, "--replicates", "0", "--json", str(figures)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    found = json.loads(figures.read_text())
    assert found["frames"] == 4
    assert 0 < found["semantic"]["miou"] < 1 and found["depth"]["rmse"] > 0
    assert 0 < found["normals"]["mean_angular_error"] < 180
    model = load_model(trained)
    gates = [p.abs().mean() for n, p in model.network.named_parameters() if n.endswith(".alpha")]
    logged = model.spec.metrics["scenes val"]["mean_gate"]
    assert (
        len(gates) == 6 and logged == pytest.approx(float(sum(gates)) / 6, rel=0.01) and logged > 0
    )


def test_openvino_equals_pytorch(trained: Path) -> None:
    pytest.importorskip("openvino")
    loaded = load_model(trained)
    torch.manual_seed(0)
    for name, parameter in loaded.network.named_parameters():
        if name.endswith("alpha"):  # so that attention, which starts at nothing, is heard
            nn.init.normal_(parameter)
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    found = []
    for engine in ("pytorch", "openvino"):
        model = LoadedModel(loaded.network, loaded.spec, loaded.path)
        predictor = Predictor(model, "cpu", engine=engine)
        wanted = predictor.available_maps
        found.append(predictor.predict(image, maps=wanted))
        predictor.close()
    first, second = found
    assert {"probabilities", "depth_variance", "normals"} <= wanted
    for name in wanted - {"labels"}:
        a, b = getattr(first, name), getattr(second, name)
        same = np.isnan(a) == np.isnan(b)
        assert same.mean() > 0.999
        assert np.nanmax(np.abs(a - b)) <= 1e-3 * np.nanmax(np.abs(a)), name
    assert (first.labels == second.labels).mean() >= 0.999


def test_student_of_an_ensemble(trained: Path, scenes: Path, tmp_path: Path) -> None:
    other = load_model(trained)
    torch.manual_seed(3)
    nn.init.normal_(other.network.decoders["depth"].outputs["0"].weight)
    save_model(tmp_path / "other.safetensors", other.network, other.spec)
    ensemble = run.write_ensemble([trained, tmp_path / "other.safetensors"], tmp_path / "both")
    together = Predictor.from_pretrained(ensemble, "cpu", engine="pytorch")
    found = together.predict(np.full((64, 96, 3), 90, np.uint8))
    assert (found.depth_epistemic > 0).any() and found.normals.shape == (64, 96, 3)
    together.close()
    values = small(tmp_path / "student", scenes)
    values["distillation"] = {"teacher": [str(ensemble)]}
    config = tmp_path / "student.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    file = run.train(load_config(config), progress=False)
    student = load_model(file)
    assert student.spec.architecture == "densemtl" and "normals" in student.spec.tasks
    predictor = Predictor(student, "cpu", engine="pytorch")
    found = predictor.predict(np.zeros((64, 96, 3), np.uint8))
    assert np.isfinite(found.depth_variance).all() and (found.depth_variance > 0).all()


def test_the_encoder_starts_from_a_published_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = timm.create_model("resnet10t", pretrained=False).state_dict()
    torch.save(published, tmp_path / "resnet.pth")
    values = small(tmp_path / "run", tmp_path)
    values["model"]["encoder_weights"] = str(tmp_path / "resnet.pth")
    settings = TrainConfig.model_validate(values)
    spec = ModelSpec(
        architecture="densemtl",
        backbone="resnet10t",
        tasks=("semantic", "depth"),
        arguments={"dilated": True},
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
    )
    encoder = run.build_network(settings, spec).encoder.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in encoder.items())
