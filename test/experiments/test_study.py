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
)
from emu_perception.inference.model_file import load_model, read_spec
from emu_perception.training.config_file import load_config, merged
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import ConfigError

REPOSITORY = Path(__file__).parents[2]


SCENES = {"test": {"name": "scenes", "split": "test"}}


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
    study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", rows=rows))
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
        tiny.study_values(tmp_path, tmp_path / "out", rows=rows, pretraining=pretraining)
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
    file = write(tmp_path / "study.yaml", tiny.study_values(tmp_path, tmp_path / "out", **change))
    with pytest.raises(ConfigError, match=message):
        load_config(file, StudyConfig)


def test_a_row_that_is_blind_to_the_image(tmp_path: Path) -> None:
    scenes = {"name": "scenes", "split": "test", "options": {"count": 2, "size": [32, 48]}}
    rows = [{"name": "baseline"}, {"name": "blind", "elevation_table": scenes}]
    changes = {"rows": rows, "tests": {"test": {**scenes, "split": "val"}}}
    study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", **changes))
    figures = _score(study, study.rows[1], Unit(0), "cpu")
    assert figures["name"] == "blind" and 0 < figures["test"]["depth"]["absrel"] < 5
    assert "parameters" not in figures


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
    content = tiny.study_values(
        data, out, rows=rows, compare=pairs, seeds=[0], pretraining={"seed": 9}
    )
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
