"""Studies: means, intervals, differences and gains from the figures of finished rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from emu_perception.experiments.study_config import StudyConfig, Unit, data_in_fold
from emu_perception.experiments.study_report import markdown
from emu_perception.experiments.study_summary import student_interval, summarise
from emu_perception.training.settings import ConfigError


def write_figure(study: StudyConfig, name: str, unit: Unit, miou: float) -> None:
    folder = study.folder(study.row(name), unit)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"test": {"semantic": {"miou": miou}}}))


def held_out(name: str) -> dict[str, Any]:
    return {"name": "ddad", "split": "train", "options": {"held_out": name}}


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
        tiny.study_values(tmp_path, tmp_path / "out", rows=rows, compare=pairs, seeds=[0, 1, 2])
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
    study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", **changes))

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


def test_leave_one_out(tmp_path: Path) -> None:
    rows = [{"name": "a", "change": {"data": {"train": [held_out("$FOLD")]}}}, {"name": "b"}]
    changes = {
        "rows": rows,
        "seeds": [3],
        "folds": ["left", "right"],
        "tests": {"test": held_out("$FOLD")},
        "compare": [{"row": "a", "against": "b", "relative": True}],
    }
    study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", **changes))
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


def test_a_reference_trained_once_serves_all_seeds(tmp_path: Path) -> None:
    rows = [{"name": "alone", "once": True}, {"name": "both"}]
    gains = [{"row": "both", "against": {"semantic": "alone"}, "test": "test"}]
    changes = {"rows": rows, "gains": gains, "seeds": [0, 1]}
    study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", **changes))
    assert [study.has(study.rows[0], unit) for unit in study.units()] == [True, False]
    write_figure(study, "alone", Unit(0), 0.5)
    write_figure(study, "both", Unit(0), 0.6)
    write_figure(study, "both", Unit(1), 0.45)
    summary = summarise(study)
    gained = summary["rows"]["both"]["Δ %"]["values"]
    assert gained == pytest.approx({"seed 0": 20.0, "seed 1": -10.0})
    assert not summary["unfinished"]


def test_a_gain_may_count_edges_by_another_figure(tmp_path: Path) -> None:
    gain = {"row": "both", "against": {"edges": "edges alone"}, "test": "test"}
    rows = [{"name": name} for name in ("edges alone", "both")]
    found = []
    for extra in ({}, {"figures": {"edges": "edges.ods_f"}}):
        changes = {"rows": rows, "seeds": [0], "gains": [gain | extra]}
        study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", **changes))
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
    study = StudyConfig.model_validate(tiny.study_values(tmp_path, tmp_path / "out", **changes))
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
    twice = tiny.study_values(tmp_path, tmp_path / "out", **changes)
    with pytest.raises(ValueError, match="same column"):
        StudyConfig.model_validate(twice)
