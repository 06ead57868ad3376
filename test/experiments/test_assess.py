"""Scores, calibration and the table, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from typer.testing import CliRunner

from emu_perception.camera import Intrinsics
from emu_perception.cli import app
from emu_perception.data import Dataset
from emu_perception.data.sample import Sample
from emu_perception.evaluation.result import write_json
from emu_perception.experiments import assess
from emu_perception.experiments.table import compare
from emu_perception.experiments.table_config import TableConfig
from emu_perception.inference.model_file import LoadedModel, load_model, save_model
from emu_perception.inference.model_spec import Calibration, Camera, Fit
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.training.data_config import DatasetConfig
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


def calibrate(model: Path, data: Path, *more: object) -> None:
    invoke(
        "calibrate", "--model", model, *DATA, "--root", data, "--split", "all",
        "--device", "cpu", "--engine", "pytorch", *more,
    )  # fmt: skip


def test_stable_keys(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    invoke(
        "evaluate", "--model", model, *DATA, "--root", data, "--split", "all",
        "--json", out, "--device", "cpu", "--engine", "pytorch", "--replicates", 0,
    )  # fmt: skip
    found = json.loads(out.read_text())
    semantic = "miou pixel_accuracy ece nll p_accurate_certain p_uncertain_inaccurate pavpu ause"
    depth = "rmse absrel delta1 nll p_accurate_certain p_uncertain_inaccurate pavpu ause"
    assert set(semantic.split()) <= found["semantic"].keys()
    assert set(depth.split()) <= found["depth"].keys()
    assert found["frames"] == 3 and found["seconds_per_frame"] > 0
    assert found["dataset"] == "nyuv2" and found["split"] == "all"
    assert (found["engine"], found["device"], found["precision"]) == ("pytorch", "cpu", "fp32")
    assert found["calibration"]["scored"] == "none"  # the file holds none
    network = load_model(model).network
    assert found["parameters"] == sum(p.numel() for p in network.parameters())


def test_calibration_lowers_both_losses(model: Path, data: Path) -> None:
    config = DatasetConfig(name="nyuv2", root=str(data), split="all", options={"classes": 13})
    fitted = assess.calibrate(load_model(model), config, device="cpu", engine="pytorch")
    assert fitted.spec.calibration.temperature > 1.2
    assert fitted.spec.calibration.depth_variance_scale > 1.2
    dataset = open_dataset(config)
    raw, calibrated = (
        assess.score(Predictor(m, "cpu", engine="pytorch"), dataset, replicates=0)
        for m in (load_model(model), fitted)
    )
    assert calibrated["semantic.nll"] < raw["semantic.nll"]
    assert calibrated["depth.nll"] < raw["depth.nll"]
    assert calibrated["semantic.miou"] == pytest.approx(raw["semantic.miou"])
    with pytest.raises(ValueError, match="was calibrated on nyuv2 all"):
        assess.check_not_fitted_on(fitted, config, dataset)
    # Another split's name hides the same images from nobody.
    test = config.model_copy(update={"split": "test"})
    with pytest.raises(ValueError, match="2 images are in both, such as '0001'"):
        assess.check_not_fitted_on(fitted, test, open_dataset(test))
    other = config.model_copy(update={"name": "other"})
    assess.check_not_fitted_on(fitted, other, dataset)


CANONICAL, DEVIATION = 80.0, 0.05
DEPTH_ONLY = DatasetConfig(name="nyuv2", split="all", options={"classes": 13})


class Walls(Dataset):
    """Flat walls at 8 m times f / f0, measured with a relative noise of `DEVIATION`.

    Args:
        known: for each image, whether its camera is known.
        distance: of the walls, in the network's unit.
    """

    tasks = ("depth",)

    def __init__(self, *known: bool, distance: float = 8.0) -> None:
        self._known = known
        self._distance = distance

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, index: int) -> Sample:
        noise = np.random.default_rng(index).normal(0.0, DEVIATION, (64, 64))
        focal = 50.0 + 10.0 * index if self._known[index] else 0.9 * 64
        depth = (self._distance * focal / CANONICAL * (1 + noise)).astype(np.float32)
        camera = Intrinsics(focal, focal, 31.5, 31.5, 64, 64) if self._known[index] else None
        image = np.full((64, 64, 3), 127, np.uint8)
        return Sample(self.name(index), "clip", image, depth=depth, intrinsics=camera)

    def name(self, index: int) -> str:
        return f"wall {index}"

    def clip(self, index: int) -> str:
        return "clip"


@pytest.fixture
def wall_model(make_model: Callable[..., LoadedModel]) -> LoadedModel:
    """Predicts the walls at 8 m, with the right deviation; its guess of a focal length is wide."""
    camera = Camera(
        canonical_focal_length=CANONICAL, assumed_focal_ratio=0.9, assumed_focal_std=0.25
    )
    model = make_model(camera=camera, tasks=("depth",), label_set=None)
    predict: Any = model.network.decoders["depth"].predict  # type: ignore[union-attr, index]
    predict.weight.data.zero_()
    variance = torch.tensor((8.0 * DEVIATION) ** 2)
    predict.bias.data = torch.stack([torch.tensor(8.0), torch.log(torch.expm1(variance))])
    return model


def test_the_variance_is_fitted_where_the_camera_is_known(
    wall_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variance that an assumed focal length adds is not scaled: it must not enter the fit."""
    walls = Walls(True, False, True, False, False)
    monkeypatch.setattr(assess, "open_dataset", lambda data: walls)
    fitted = assess.calibrate(wall_model, DEPTH_ONLY, device="cpu", engine="pytorch")
    assert fitted.spec.calibration.depth_variance_scale == pytest.approx(1.0, rel=0.05)
    assert fitted.spec.calibration.fits["depth_variance_scale"].samples == ("wall 0", "wall 2")
    predictor = Predictor(fitted, "cpu", engine="pytorch")
    known = assess.score(predictor, Walls(True, True), replicates=0)
    assert known["depth.mean_normalized_squared_error"] == pytest.approx(1.0, rel=0.05)


def test_a_variance_scale_needs_a_known_camera(
    wall_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assess, "open_dataset", lambda data: Walls(False, False))
    with pytest.raises(ValueError, match="depth of a known camera"):
        assess.calibrate(wall_model, DEPTH_ONLY, device="cpu", engine="pytorch")
    # A network without a canonical focal length assumes none: every depth counts.
    model = wall_model.described(wall_model.spec.model_copy(update={"camera": None}))
    fitted = assess.calibrate(model, DEPTH_ONLY, device="cpu", engine="pytorch")
    assert fitted.spec.calibration.depth_variance_scale > 1


def test_each_of_several_data_sets_has_the_same_weight(
    wall_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walls of the second data set are more often of a known camera: more pixels, no weight."""
    far = DEPTH_ONLY.model_copy(update={"split": "train"})
    one, three = Walls(True), Walls(True, True, True, distance=10.0)
    monkeypatch.setattr(assess, "open_dataset", lambda data: one if data is DEPTH_ONLY else three)
    scales = [
        assess.calibrate(wall_model, data, device="cpu", engine="pytorch").spec.calibration
        for data in (DEPTH_ONLY, far, [DEPTH_ONLY, far])
    ]
    near, apart, both = (calibration.depth_variance_scale for calibration in scales)
    assert apart > 1.5 * near and both == pytest.approx((near + apart) / 2)
    fit = scales[2].fits["depth_variance_scale"]
    assert [len(each.samples) for each in (fit, *fit.further)] == [1, 3]
    assert scales[2].fitted_on.count(" images)") == 2


def test_calibrate_keeps_the_weights_and_what_it_cannot_fit(
    model: Path, data: Path, tmp_path: Path
) -> None:
    before = load_model(model).network.state_dict()
    first, second = tmp_path / "labelled", tmp_path / "measured"
    for root, kind in ((first, "label13"), (second, "depth_mm")):
        root.mkdir()
        for folder in ("rgb", kind):
            (root / folder).symlink_to(data / folder)
    calibrate(model, first)
    found = load_model(model).spec.calibration
    assert found.temperature > 1.2 and found.depth_variance_scale == 1
    calibrate(model, second, "--out", tmp_path / "both.safetensors")
    after = load_model(tmp_path / "both.safetensors")
    assert after.spec.calibration.temperature == found.temperature
    assert after.spec.calibration.depth_variance_scale > 1.2
    assert after.spec.calibration.fitted_on == "nyuv2 all (3 images)"
    assert all(torch.equal(v, before[k]) for k, v in after.network.state_dict().items())
    assert load_model(model).spec.calibration == found


def test_a_calibration_names_what_each_number_was_fitted_on() -> None:
    streets = Fit(title="camvid calibration (47 images)", dataset="camvid", samples=("a",))
    drives = Fit(title="ddad calibration (3 images)", dataset="ddad", samples=("b",))
    temperature = Calibration().fitted(streets, temperature=1.5)
    assert temperature.fitted_on == "temperature on camvid calibration (47 images)"
    both = temperature.fitted(drives, depth_variance_scale=2.0)
    assert (both.temperature, both.depth_variance_scale) == (1.5, 2.0)
    assert both.fitted_on == (
        "temperature on camvid calibration (47 images), depth variance on ddad calibration "
        "(3 images)"
    )
    assert Calibration.model_validate(json.loads(both.model_dump_json())) == both
    # A file of an older version names its data in words only.
    old = Calibration(temperature=0.9, depth_variance_scale=3.0, fitted_on="some scenes")
    mended = old.fitted(streets, temperature=1.5)
    assert mended.depth_variance_scale == 3
    assert mended.fitted_on.endswith("depth variance on some scenes")


def test_an_ensemble_of_files_is_calibrated_as_a_whole(
    model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ensemble.safetensors"
    refused = CliRunner().invoke(
        app, ["calibrate", "-m", str(model), "-m", str(model), *DATA, "--root", str(data)]
    )
    assert refused.exit_code == 2 and "give --out" in refused.output
    calibrate(model, data, "--model", model, "--out", out)
    spec = load_model(out).spec
    assert spec.architecture == "deep_ensemble" and spec.calibration.temperature > 1.2
    assert load_model(model).spec.calibration == Calibration()


def test_a_file_names_the_data_of_a_calibration(model: Path, data: Path, tmp_path: Path) -> None:
    config = tmp_path / "calibration.yaml"
    config.write_text(
        f"data:\n  - {{name: nyuv2, root: {data}, split: all, options: {{classes: 13}}}}\n"
    )
    invoke("calibrate", "--model", model, "--config", config, "--device", "cpu")
    assert load_model(model).spec.calibration.temperature > 1.2
    refused = CliRunner().invoke(
        app, ["calibrate", "-m", str(model), "--config", str(config), "--dataset", "nyuv2"]
    )
    assert refused.exit_code == 2 and "give --dataset, or --config" in refused.output


def test_the_split_reported_on_is_refused(model: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="reported on its split 'test'"):
        invoke("calibrate", "--model", model, *DATA, "--root", data, "--split", "test")


def test_a_table_of_methods(model: Path, data: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.safetensors"
    loaded = load_model(model)
    calibration = Calibration(temperature=2.0, fitted_on="some scenes")
    spec = loaded.spec.model_copy(update={"calibration": calibration})
    save_model(stored, loaded.network, spec)
    table = tmp_path / "table.yaml"
    rows = [
        {"name": "baseline", "models": [str(stored)]},
        {"name": "Deep | Ensemble", "models": [str(model), str(model)]},
        {"name": "dropout", "models": [str(model)], "dropout": 0.3, "samples": 2},
        {"name": "stored", "models": [str(stored)], "calibration": "as stored"},
        {"name": "fitted", "models": [str(stored)], "calibration": "fitted"},
    ]
    test = {"name": "nyuv2", "root": str(data), "split": "test", "options": {"classes": 13}}
    values = {"data": test, "rows": rows, "void_as_inaccurate": True}
    values["calibration"] = {**test, "split": "train"}
    table.write_text(yaml.safe_dump(values))
    out, text = tmp_path / "t.json", tmp_path / "t.md"
    invoke(
        "evaluate", "--table", table, "--json", out, "--markdown", text, "--device", "cpu",
        "--engine", "pytorch", "--replicates", 0,
    )  # fmt: skip
    found = {row["name"]: row for row in json.loads(out.read_text())}
    assert list(found) == [row["name"] for row in rows]
    assert found["Deep | Ensemble"]["parameters"] == 2 * found["baseline"]["parameters"]
    nll = {name: row["semantic"]["nll"] for name, row in found.items()}
    # An ensemble of one network with itself is that network; what a file holds is not applied.
    assert nll["Deep | Ensemble"] == pytest.approx(nll["baseline"], rel=1e-4)
    assert nll["dropout"] != nll["baseline"] != nll["stored"]
    assert nll["fitted"] not in (nll["baseline"], nll["stored"])
    calibrations = {name: row["calibration"]["scored"] for name, row in found.items()}
    assert list(calibrations.values()) == ["none", "none", "none", "as stored", "fitted"]
    assert found["fitted"]["calibration"]["fitted_on"] == "nyuv2 train (1 images)"
    assert found["baseline"]["settings"]["void_as_inaccurate"] is True
    lines = text.read_text().splitlines()
    assert len(lines) == 7 and lines[0].startswith("| method | calibration | parameters | engine |")
    assert "Deep \\| Ensemble" in lines[3] and "| as stored |" in lines[5]

    values["calibration"] = {**test, "split": "all"}
    with pytest.raises(ValueError, match=r"calibrated on nyuv2 all .*2 images are in both"):
        compare(TableConfig.model_validate(values), device="cpu", engine="pytorch")
    del values["calibration"]
    with pytest.raises(ValueError, match="row 'fitted' is to be fitted: give the data"):
        TableConfig.model_validate(values)


def test_rows_of_a_table_against_each_other(model: Path, data: Path, tmp_path: Path) -> None:
    rows = [
        {"name": "plain", "models": [str(model)]},
        {
            "name": "dropout",
            "models": [str(model)],
            "dropout": 0.4,
            "samples": 2,
            "against": "plain",
        },
        {"name": "the same", "models": [str(model)], "against": "plain"},
    ]
    values = {
        "data": {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}},
        "rows": rows,
    }
    table, out, text = (tmp_path / name for name in ("table.yaml", "t.json", "t.md"))
    table.write_text(yaml.safe_dump(values))
    shown = invoke(
        "evaluate", "--table", table, "--json", out, "--markdown", text, "--device", "cpu",
        "--engine", "pytorch", "--replicates", 20,
    )  # fmt: skip
    plain, dropout, same = json.loads(out.read_text())
    assert "differences" not in plain and dropout["against"] == "plain"
    difference, low, high = dropout["differences"]["semantic.nll"]
    assert low <= difference <= high and difference != 0
    assert difference == pytest.approx(dropout["semantic"]["nll"] - plain["semantic"]["nll"])
    assert all(ends == [0, 0, 0] for ends in same["differences"].values())
    assert "| dropout − plain |" in text.read_text()
    assert f"{difference:+.4f}" in shown
    ignored = CliRunner().invoke(app, ["evaluate", "--table", str(table), "--split", "val"])
    assert ignored.exit_code == 2 and "names models and data set itself" in ignored.output
    twins = [{**rows[0], "name": name} for name in ("a+", "a=")]
    with pytest.raises(ValueError, match="would share the folder 'a_'"):
        TableConfig.model_validate({**values, "rows": twins})
    rows[1]["against"] = "plane"
    with pytest.raises(ValueError, match="row 'dropout': no other row is named 'plane'"):
        TableConfig.model_validate(values)


def test_data_check_names_the_broken_file(data: Path) -> None:
    broken = data / "rgb" / "0002.png"
    whole = broken.read_bytes()
    try:
        broken.write_bytes(whole[:40])
        result = CliRunner().invoke(app, ["data", "check", "-d", "nyuv2", "--root", str(data)])
    finally:
        broken.write_bytes(whole)
    assert result.exit_code == 1 and "0002.png" in result.output


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5]}
