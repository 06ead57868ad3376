"""Scores, calibration and the table, through the command line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.evaluation.result import write_json
from emu_perception.labels import load_label_set
from emu_perception.model_file import load_model, save_model
from emu_perception.predictor import Predictor
from emu_perception.training import assess
from emu_perception.training.config import DatasetConfig
from emu_perception.training.data_module import open_dataset

DATA = ["--dataset", "nyuv2", "--option", "classes=13"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture
def model(write_model: Callable[..., Path]) -> Path:
    path = write_model(
        arguments={"width": 8},
        label_set=load_label_set("nyuv2_13"),
        input_size=(64, 96),
        depth_range=(0.001, 10.0),
        depth_mean=4.0,
    )
    loaded = load_model(path)
    # Overconfident in both tasks, so that calibration has something to mend.
    decoders: Any = loaded.network.decoders
    decoders["semantic"].predict.weight.data *= 40
    decoders["depth"].predict.bias.data[1] = -3.0
    save_model(path, loaded.network, loaded.spec)
    return path


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_stable_keys(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    invoke(
        "evaluate", "--model", model, *DATA, "--root", data, "--split", "all",
        "--json", out, "--device", "cpu", "--replicates", 0,
    )  # fmt: skip
    found = json.loads(out.read_text())
    semantic = "miou pixel_accuracy ece nll p_accurate_certain p_uncertain_inaccurate pavpu ause"
    depth = "rmse absrel delta1 nll p_accurate_certain p_uncertain_inaccurate pavpu ause"
    assert set(semantic.split()) <= found["semantic"].keys()
    assert set(depth.split()) <= found["depth"].keys()
    assert found["frames"] == 3 and found["seconds_per_frame"] > 0
    assert found["dataset"] == "nyuv2" and found["split"] == "all"
    network = load_model(model).network
    assert found["parameters"] == sum(p.numel() for p in network.parameters())


def test_calibration_lowers_both_losses(model: Path, data: Path) -> None:
    config = DatasetConfig(name="nyuv2", root=str(data), split="all", options={"classes": 13})
    fitted = assess.calibrate(load_model(model), config, device="cpu")
    assert fitted.spec.calibration.temperature > 1.2
    assert fitted.spec.calibration.depth_variance_scale > 1.2
    dataset = open_dataset(config)
    raw, calibrated = (
        assess.score(Predictor(m, "cpu", engine="pytorch"), dataset, replicates=0)
        for m in (load_model(model), replace(load_model(model), spec=fitted.spec))
    )
    assert calibrated["semantic.nll"] < raw["semantic.nll"]
    assert calibrated["depth.nll"] < raw["depth.nll"]
    assert calibrated["semantic.miou"] == pytest.approx(raw["semantic.miou"])
    with pytest.raises(ValueError, match="was calibrated on nyuv2 all"):
        assess.check_not_fitted_on(fitted, config)


def test_calibrate_writes_the_file_and_keeps_the_weights(model: Path, data: Path) -> None:
    before = load_model(model).network.state_dict()
    invoke(
        "calibrate", "--model", model, *DATA, "--root", data, "--split", "all", "--device", "cpu"
    )
    after = load_model(model)
    assert after.spec.calibration.fitted_on == "nyuv2 all (3 images)"
    assert all(torch.equal(v, before[k]) for k, v in after.network.state_dict().items())


def test_the_split_reported_on_is_refused(model: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="reported on its split 'test'"):
        invoke("calibrate", "--model", model, *DATA, "--root", data, "--split", "test")


def test_a_table_of_methods(model: Path, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    rows = [
        {"name": "baseline", "models": [str(model)]},
        {"name": "Deep | Ensemble", "models": [str(model), str(model)]},
        {"name": "dropout", "models": [str(model)], "dropout": 0.3, "samples": 2},
    ]
    split = {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}}
    table.write_text(yaml.safe_dump({"data": split, "rows": rows}))
    out, text = tmp_path / "t.json", tmp_path / "t.md"
    invoke(
        "evaluate", "--table", table, "--json", out, "--markdown", text, "--device", "cpu",
        "--replicates", 0,
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert [row["name"] for row in found] == ["baseline", "Deep | Ensemble", "dropout"]
    assert found[1]["parameters"] == 2 * found[0]["parameters"]
    # An ensemble of one network with itself is that network.
    assert found[1]["semantic"]["nll"] == pytest.approx(found[0]["semantic"]["nll"], rel=1e-4)
    assert found[2]["semantic"]["nll"] != found[0]["semantic"]["nll"]
    lines = text.read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("| method | parameters |")
    assert "Deep \\| Ensemble" in lines[3]


def test_data_check_names_the_broken_file(data: Path) -> None:
    broken = data / "rgb" / "0002.png"
    whole = broken.read_bytes()
    try:
        broken.write_bytes(whole[:40])
        result = CliRunner().invoke(app, ["data", "check", "nyuv2", str(data)])
    finally:
        broken.write_bytes(whole)
    assert result.exit_code == 1 and "0002.png" in result.output


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5]}
