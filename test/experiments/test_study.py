"""Studies: what a row trains, what the tables say, and a small one from end to end."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.data import PartiallyAnnotated
from emu_perception.experiments.study import _score, with_a_task
from emu_perception.experiments.study_config import (
    StudyConfig,
    Unit,
    data_in_fold,
)
from emu_perception.experiments.study_report import markdown
from emu_perception.experiments.study_summary import student_interval, summarise
from emu_perception.inference.model_file import load_model, read_spec
from emu_perception.training.config_file import load_config, merged
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import ConfigError

REPOSITORY = Path(__file__).parents[2]


SCENES = {"test": {"name": "scenes", "split": "test"}}


def values(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    base = tiny.values(data, out, trainer={"epochs": 1})
    del base["output"]
    split = base["data"]["train"][0]
    return {
        "output": str(out),
        "seeds": [0, 1],
        "base": base,
        "tests": {"test": split},
        "calibration": {**split, "split": "train"},
        "columns": {"mIoU": "test.semantic.miou", "AbsRel": "test.depth.absrel"},
        "rows": [{"name": "baseline"}],
        **changes,
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_the_shipped_studies_are_valid() -> None:
    files = (REPOSITORY / "config" / "studies").glob("*.yaml")
    found = sorted(file for file in files if not file.stem.startswith("mining_"))
    assert found
    for file in found:
        load_config(file, StudyConfig)


def test_groups_are_merged_and_values_replaced() -> None:
    base = {"a": {"b": {"c": 1, "d": 2}}, "e": [1, 2]}
    assert merged(base, {"a": {"b": {"c": 3}}, "e": [4]}) == {
        "a": {"b": {"c": 3, "d": 2}},
        "e": [4],
    }
    assert base["a"] == {"b": {"c": 1, "d": 2}}


def test_rows_differ_in_what_they_name(tmp_path: Path) -> None:
    rows = [
        {"name": "baseline"},
        {"name": "member 1", "member": 1, "shown": False},
        {"name": "ensemble", "models": ["baseline", "member 1"]},
        {
            "name": "student",
            "start_from": "baseline",
            "teacher": "ensemble",
            "change": {"model": {"arguments": {"width": 16}}},
        },
    ]
    study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", rows=rows))
    baseline, member = (study.training(study.rows[i], Unit(1)) for i in (0, 1))
    assert (baseline.seed, baseline.distillation, baseline.model.start_from) == (1, None, None)
    assert member.seed not in (0, 1, baseline.seed)
    assert member.model_copy(update={"seed": 1, "output": baseline.output}) == baseline
    student = study.training(study.rows[3], Unit(1))
    first = tmp_path / "out" / "seed_1" / "baseline" / "model.safetensors"
    second = first.parents[1] / "member_1" / "model.safetensors"
    assert student.model.start_from == str(first)
    assert student.distillation is not None
    assert student.distillation.teacher == [str(first), str(second)]
    assert student.seed == 1
    assert student.model.arguments["width"] == 16
    assert student.data == baseline.data


def test_rows_start_from_the_pretrained_encoder(tmp_path: Path) -> None:
    rows = [{"name": "baseline"}, {"name": "longer", "start_from": "baseline"}]
    pretraining = {"trainer": {"epochs": 7}}
    study = StudyConfig.model_validate(
        values(tmp_path, tmp_path / "out", rows=rows, pretraining=pretraining)
    )
    run = study.pretraining_run()
    assert run is not None
    assert run.trainer.epochs == 7
    assert run.model.encoder_weights is None
    first, longer = (study.training(row, Unit(0)) for row in study.rows)
    assert first.model.encoder_weights == str(Path(run.output) / "model.safetensors")
    assert longer.model.encoder_weights is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"name": "a", "teacher": "b"}]}, "needs 'b', which no row above it is"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "two rows are named 'a'"),
        ({"rows": [{"name": "b+"}, {"name": "b-"}]}, "would share the folder 'b_'"),
        ({"rows": [{"name": "a"}, {"name": "b", "models": ["a"], "member": 1}]}, "trains nothing"),
        ({"rows": [{"name": "a", "calibrated": True}], "calibration": None}, "`calibration`"),
        ({"compare": [{"row": "baseline", "against": "x"}]}, "there is no row 'x'"),
        ({"columns": {"mIoU": "elsewhere.semantic.miou"}}, "there is no such test"),
        (
            {"gains": [{"row": "baseline", "against": {"depth": "x"}, "test": "test"}]},
            "there is no row 'x' with figures",
        ),
        (
            {"gains": [{"row": "baseline", "against": {"depth": "baseline"}, "test": "odd"}]},
            "gains: there is no test 'odd'",
        ),
        ({"columns": {"Δ %": "test.semantic.miou"}}, "is what `gains` give"),
        (
            {"tests": {"validation": {"name": "scenes", "split": "test"}}},
            "tests: 'validation' is what the runs logged",
        ),
        ({"sedes": [1]}, "did you mean 'seeds'"),
        (
            {"rows": [{"name": "a"}, {"name": "b", "change": {"model": {"bakbone": "x"}}}]},
            "row 'b' cannot be trained:\n *model.bakbone: .*did you mean 'backbone'",
        ),
        ({"rows": [{"name": "a", "dropout": 0.2}]}, "dropout is sampled of one of models"),
        (
            {"rows": [{"name": "a", "once": True}, {"name": "b", "start_from": "a"}]},
            "'a', which is there only once",
        ),
        ({"calibration": {"name": "scenes", "split": "test"}, "tests": SCENES}, "would flatter"),
        ({"base": {}}, "model"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "study.yaml", values(tmp_path, tmp_path / "out", **change))
    with pytest.raises(ConfigError, match=message):
        load_config(file, StudyConfig)


def test_interval_of_student() -> None:
    # Mean 2, deviation 1, n = 3: 2 ± 4.302653 / sqrt(3).
    low, high = student_interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 2.484138, abs=1e-5)
    assert high == pytest.approx(2 + 2.484138, abs=1e-5)
    assert student_interval([1.0]) == (None, None)


def test_tables_from_figures(tmp_path: Path) -> None:
    rows = [{"name": "baseline"}, {"name": "other | method"}]
    pairs = [{"row": "other | method", "against": "baseline"}]
    study = StudyConfig.model_validate(
        values(tmp_path, tmp_path / "out", rows=rows, compare=pairs, seeds=[0, 1, 2])
    )
    with pytest.raises(ConfigError, match="no finished row"):
        summarise(study)
    figures = {("baseline", 0): 0.5, ("baseline", 1): 0.7, ("other | method", 0): 0.6}
    for (name, seed), value in {**figures, ("other | method", 1): 0.9}.items():
        folder = study.folder(study.row(name), Unit(seed))
        folder.mkdir(parents=True)
        found = {"test": {"semantic": {"miou": value}, "depth": None}}
        (folder / "result.json").write_text(json.dumps(found))
    misnamed = study.model_copy(update={"columns": {"mIoU": "test.semantic.mIoU"}})
    with pytest.raises(ConfigError, match=r"no such figure; did you mean 'test\.semantic\.miou'"):
        summarise(misnamed)
    summary = summarise(study)
    assert summary["rows"]["baseline"]["mIoU"]["mean"] == pytest.approx(0.6)
    assert summary["rows"]["baseline"]["mIoU"]["deviation"] == pytest.approx(0.02**0.5)
    assert "AbsRel" not in summary["rows"]["baseline"]
    difference = summary["differences"][0]["columns"]["mIoU"]
    assert difference["mean"] == pytest.approx(0.15)
    assert difference["values"] == pytest.approx({"seed 0": 0.1, "seed 1": 0.2})
    # Two seeds: 0.15 ± 12.7062 × 0.0707107 / sqrt(2).
    assert difference["high"] == pytest.approx(0.15 + 12.7062 * 0.05, abs=1e-4)
    assert summary["unfinished"] == ["seed 2: baseline", "seed 2: other | method"]
    text = markdown(summary)
    assert "| baseline | 0.6 ± 0.14 |" in text
    assert "other \\| method − baseline | +0.15 [-0.485, +0.785] 2/2 |" in text
    assert "Not finished: seed 2: baseline" in text


def test_gains_over_single_task_rows(tmp_path: Path) -> None:
    names = ["classes alone", "depth alone", "both", "both, isolated"]
    singles = {"semantic": "classes alone", "depth": "depth alone"}
    changes = {
        "rows": [{"name": name} for name in names],
        "seeds": [0, 1, 2],
        "gains": [{"row": name, "against": singles, "test": "test"} for name in names[2:]],
        "compare": [{"row": "both", "against": "both, isolated"}],
        "columns": {"mIoU": "test.semantic.miou", "RMSE": "test.depth.rmse"},
    }
    study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", **changes))

    def write_result(name: str, seed: int, miou: float | None, rmse: float | None) -> None:
        folder = study.folder(study.row(name), Unit(seed))
        folder.mkdir(parents=True, exist_ok=True)
        found = {"semantic": {"miou": miou}, "depth": None if rmse is None else {"rmse": rmse}}
        (folder / "result.json").write_text(json.dumps({"test": found}))

    for seed in (0, 1):
        write_result("classes alone", seed, 67.93, None)
        write_result("depth alone", seed, None, 6.622)
    # Cityscapes of arXiv 2206.08927.
    write_result("both", 0, 74.95, 6.649)
    write_result("both", 1, 67.93, 6.622)
    write_result("both", 2, 80.0, 1.0)  # no single-task rows yet
    write_result("both, isolated", 0, 67.93, 6.622)
    write_result("both, isolated", 1, 67.93, 6.622 * 1.02)
    summary = summarise(study)
    gains = summary["rows"]["both"]["Δ %"]["values"]
    assert gains == pytest.approx({"seed 0": 4.963, "seed 1": 0.0}, abs=1e-3)
    assert "Δ %" not in summary["rows"]["depth alone"]
    difference = summary["differences"][0]["columns"]["Δ %"]["values"]
    assert difference == pytest.approx({"seed 0": 4.963, "seed 1": 1.0}, abs=1e-3)
    text = markdown(summary)
    assert "| Δ % |" in text.splitlines()[0]
    write_result("depth alone", 0, None, None)
    with pytest.raises(ConfigError, match=r"'depth alone' has no figure 'test.depth.rmse'"):
        summarise(study)


def write_figure(study: StudyConfig, name: str, unit: Unit, miou: float) -> None:
    folder = study.folder(study.row(name), unit)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"test": {"semantic": {"miou": miou}}}))


def test_leave_one_out(tmp_path: Path) -> None:
    rows = [{"name": "a", "change": {"data": {"train": [held_out("$FOLD")]}}}, {"name": "b"}]
    changes = {
        "rows": rows,
        "seeds": [3],
        "folds": ["left", "right"],
        "tests": {"test": held_out("$FOLD")},
        "compare": [{"row": "a", "against": "b", "relative": True}],
    }
    study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", **changes))
    left, right = study.units()
    trained = study.training(study.rows[0], right)
    assert trained.data.train[0].options == {"held_out": "right"}
    assert trained.output.endswith("seed_3/right/a")
    assert data_in_fold(study.tests["test"], "left").options == {"held_out": "left"}
    for unit, mine, its in ((left, 0.6, 0.5), (right, 0.8, 1.0)):
        write_figure(study, "a", unit, mine)
        write_figure(study, "b", unit, its)
    summary = summarise(study)
    found = summary["differences"][0]["columns"]["mIoU"]
    assert found["values"] == pytest.approx({"seed 3, left": 20.0, "seed 3, right": -20.0})
    assert found["below"] == 1
    text = markdown(summary)
    assert "| method | seed 3, left | seed 3, right |" in text
    assert "| a | 0.6 | 0.8 |" in text
    assert "| a ÷ b |" in text


def held_out(name: str) -> dict[str, Any]:
    return {"name": "ddad", "split": "train", "options": {"held_out": name}}


def test_a_reference_trained_once_serves_all_seeds(tmp_path: Path) -> None:
    rows = [{"name": "alone", "once": True}, {"name": "both"}]
    gains = [{"row": "both", "against": {"semantic": "alone"}, "test": "test"}]
    changes = {"rows": rows, "gains": gains, "seeds": [0, 1]}
    study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", **changes))
    assert [study.has(study.rows[0], unit) for unit in study.units()] == [True, False]
    write_figure(study, "alone", Unit(0), 0.5)
    write_figure(study, "both", Unit(0), 0.6)
    write_figure(study, "both", Unit(1), 0.45)
    summary = summarise(study)
    gained = summary["rows"]["both"]["Δ %"]["values"]
    assert gained == pytest.approx({"seed 0": 20.0, "seed 1": -10.0})
    assert not summary["unfinished"]


def test_a_row_that_is_blind_to_the_image(tmp_path: Path) -> None:
    scenes = {"name": "scenes", "split": "test", "options": {"count": 2, "size": [32, 48]}}
    rows = [{"name": "baseline"}, {"name": "blind", "elevation_table": scenes}]
    changes = {"rows": rows, "tests": {"test": {**scenes, "split": "val"}}}
    study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", **changes))
    figures = _score(study, study.rows[1], Unit(0), "cpu")
    assert figures["name"] == "blind" and 0 < figures["test"]["depth"]["absrel"] < 5
    assert "parameters" not in figures


def test_a_gain_may_count_edges_by_another_figure(tmp_path: Path) -> None:
    gain = {"row": "both", "against": {"edges": "edges alone"}, "test": "test"}
    rows = [{"name": name} for name in ("edges alone", "both")]
    found = []
    for extra in ({}, {"figures": {"edges": "edges.ods_f"}}):
        changes = {"rows": rows, "seeds": [0], "gains": [gain | extra]}
        study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", **changes))
        for name, f1, ods_f in (("edges alone", 0.5, 0.4), ("both", 0.6, 0.6)):
            folder = study.folder(study.row(name), Unit(0))
            folder.mkdir(parents=True, exist_ok=True)
            result = {"test": {"edges": {"f1": f1, "ods_f": ods_f}}}
            (folder / "result.json").write_text(json.dumps(result))
        found.append(summarise(study)["rows"]["both"]["Δ %"]["mean"])
    assert found == pytest.approx([20.0, 50.0])


def test_a_row_has_several_gains_in_columns_of_their_own(tmp_path: Path) -> None:
    against = {"semantic": "classes", "depth": "depth"}
    gain = {"row": "both", "against": against, "test": "test"}
    published = {
        "column": "Δ of Eq. 17 %",
        "figures": {
            "semantic": ["semantic.miou", "semantic.pixel_accuracy"],
            "depth": ["depth.inverse_mae", "depth.inverse_absrel"],
        },
    }
    changes = {
        "rows": [{"name": name} for name in ("classes", "depth", "both")],
        "seeds": [0],
        "gains": [gain, gain | published],
    }
    study = StudyConfig.model_validate(values(tmp_path, tmp_path / "out", **changes))
    classes = {"miou": 0.5, "pixel_accuracy": 0.8}
    depth = {"rmse": 4.0, "inverse_mae": 0.01, "inverse_absrel": 0.2, "absrel": 0.1}
    better = {"miou": 0.55, "pixel_accuracy": 0.84}
    worse = {"rmse": 5.0, "inverse_mae": 0.008, "inverse_absrel": 0.25, "absrel": 0.1}
    found = {"classes": (classes, {}), "depth": ({}, depth), "both": (better, worse)}
    for name, (semantic, own) in found.items():
        folder = study.folder(study.row(name), Unit(0))
        folder.mkdir(parents=True)
        result = {"test": {"semantic": semantic, "depth": own}}
        (folder / "result.json").write_text(json.dumps(result))
    row = summarise(study)["rows"]["both"]
    assert row["Δ %"]["mean"] == pytest.approx((10 - 25) / 2)
    assert row["Δ of Eq. 17 %"]["mean"] == pytest.approx((10 + 5 + 20 - 25) / 4)
    changes["gains"] = [gain, gain]
    twice = values(tmp_path, tmp_path / "out", **changes)
    with pytest.raises(ValueError, match="same column"):
        StudyConfig.model_validate(twice)


def test_a_row_is_scored_where_there_are_labels_of_its_tasks(tmp_path: Path) -> None:
    both = open_dataset(DatasetConfig(name="scenes", split="test", options={"count": 1}))
    alone = PartiallyAnnotated(both, ["depth", "normals"], "one")
    datasets = {"both": both, "depth": alone}
    assert list(with_a_task(datasets, ["semantic"])) == ["both"]
    assert list(with_a_task(datasets, ["semantic", "depth"])) == ["both", "depth"]
    with pytest.raises(ValueError, match="none of the tests depth has labels for semantic"):
        with_a_task({"depth": alone}, ["semantic"])


def test_a_small_study_from_end_to_end(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", 3)
    rows = [
        {"name": "baseline"},
        {"name": "member", "member": 1, "shown": False},
        {"name": "ensemble", "models": ["baseline", "member"]},
        {"name": "student", "start_from": "baseline", "teacher": "ensemble"},
        {"name": "calibrated", "models": ["student"], "calibrated": True},
        {"name": "sampled", "models": ["student"], "dropout": 0.3, "samples": 2},
    ]
    pairs = [{"row": "student", "against": "baseline"}]
    out = tmp_path / "out"
    content = values(data, out, rows=rows, compare=pairs, seeds=[0], pretraining={"seed": 9})
    # Not those that it is calibrated on.
    content["tests"]["test"] = {**content["tests"]["test"], "split": "test"}
    content["base"]["data"]["validation"] = content["tests"]["test"]
    content["columns"]["watched"] = "validation.miou"
    file = write(tmp_path / "study.yaml", content)
    result = CliRunner().invoke(app, ["study", "--config", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "| student − baseline |" in result.output
    summary = json.loads((out / "study.json").read_text())
    assert list(summary["rows"]) == [*("baseline", "ensemble", "student", "calibrated", "sampled")]
    # Sampled dropout is another prediction of the same network.
    means = [summary["rows"][name]["AbsRel"]["mean"] for name in ("student", "sampled")]
    assert means[0] != means[1]
    assert not summary["unfinished"]
    # The run's own figures, where there is a run; the same images as the test's.
    watched = summary["rows"]["student"]["watched"]["mean"]
    assert watched == pytest.approx(summary["rows"]["student"]["mIoU"]["mean"], abs=0.05)
    assert "watched" not in summary["rows"]["ensemble"]
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")
    folder = out / "seed_0"
    assert (out / "pretraining" / "model.safetensors").is_file()
    assert not (folder / "member" / "result.json").exists()
    figures = json.loads((folder / "calibrated" / "result.json").read_text())
    assert figures["calibration"]["fitted_on"].startswith("nyuv2 train")
    # The trained file itself stays as it was.
    assert read_spec(folder / "student" / "model.safetensors").calibration.fitted_on == ""
    assert figures["test"]["frames"] == 2
    once = load_model(folder / "student" / "model.safetensors").network.state_dict()
    before = (folder / "student" / "model.safetensors").stat().st_mtime_ns

    again = CliRunner().invoke(app, ["study", "--config", str(file)], catch_exceptions=False)
    assert again.exit_code == 0 and "scoring" not in again.output
    assert (folder / "student" / "model.safetensors").stat().st_mtime_ns == before
    start = load_model(folder / "baseline" / "model.safetensors").network.state_dict()
    assert any(not once[name].equal(start[name]) for name in once)

    # Another test set: figures are made anew, networks are not.
    content["tests"]["test"] = {**content["tests"]["test"], "split": "all"}
    wider = StudyConfig.model_validate(content)
    with pytest.raises(ValueError, match="would flatter"):
        _score(wider, wider.row("calibrated"), Unit(0), "cpu")
    content["rows"] = rows[:1]
    content["compare"] = []
    other = write(tmp_path / "other.yaml", content)
    third = CliRunner().invoke(app, ["study", "--config", str(other)], catch_exceptions=False)
    assert "baseline: scoring" in third.output
    assert (folder / "student" / "model.safetensors").stat().st_mtime_ns == before
