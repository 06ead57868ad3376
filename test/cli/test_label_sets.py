"""Own classes on the command line: nothing is left out silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.data import build_dataset, ignored_fraction, unmatched_classes
from emu_perception.labels import load_label_set


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    return write_model(input_size=(32, 64), arguments={"width": 8}, tasks=("semantic",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "classes.yaml").write_text(
        "name: mine\nclasses:\n"
        "  - {name: road, color: [1, 2, 3]}\n  - {name: floor, color: [4, 5, 6]}\n"
        "  - {name: shelf, color: [7, 8, 9]}\n"
    )
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for i in range(2):
        labels = np.full((32, 64), 255, np.uint8)
        labels[:, :40] = 0
        labels[:, 40:50] = 2
        image = np.random.default_rng(i).integers(0, 256, (32, 64, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), image)
        assert cv2.imwrite(str(tmp_path / "labels" / f"{i}.png"), labels)
    return tmp_path


def evaluate(data: Path, model_file: Path, *arguments: object) -> tuple[int, str]:
    command = ["evaluate", "--model", model_file, "--dataset", "folder", "--root", data]
    command += ["--option", f"label_set={data / 'classes.yaml'}", "--label-set", "camvid"]
    command += ["--engine", "pytorch", "--replicates", 0, *arguments]
    found = CliRunner().invoke(app, [str(word) for word in command])
    return found.exit_code, f"{found.output}{found.stderr}{found.exception or ''}"


def test_classes_without_a_counterpart_are_refused(data: Path, model_file: Path) -> None:
    status, output = evaluate(data, model_file)
    assert status == 1
    assert "no counterpart for floor, shelf" in output and "--rename" in output
    status, output = evaluate(data, model_file, "--rename", "floor=road")
    assert status == 1 and "no counterpart for shelf;" in output


def test_renamed_and_accepted_classes_are_scored(data: Path, model_file: Path) -> None:
    renamed = ("--rename", "floor=road", "--rename", "shelf=fence")
    status, output = evaluate(data, model_file, *renamed)
    assert status == 0, output
    assert "ignored" not in output
    status, output = evaluate(data, model_file, "--rename", "floor=road", "--allow-unmatched")
    assert status == 0, output
    assert "ignored: shelf (20.0% of the labelled pixels)" in output
    assert evaluate(data, model_file, "--rename", "floor")[0] == 2


def test_unmatched_classes_follow_coarse_labels(data: Path) -> None:
    cityscapes, camvid = load_label_set("cityscapes"), load_label_set("camvid")
    assert unmatched_classes(camvid, cityscapes) == []  # tree covers vegetation and terrain, …
    assert "motorcycle" in unmatched_classes(cityscapes, camvid)
    dataset = build_dataset("folder", data, "all", label_set=str(data / "classes.yaml"))
    assert ignored_fraction(dataset, ["shelf"]) == pytest.approx(0.2)
