"""Recordings without camera_info: the camera is given, or outputs that need it are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception.camera import Intrinsics
from emu_perception.cli import app
from emu_perception.inference.model_spec import Camera
from emu_perception.inference.predictor import Predictor
from emu_perception.messages.images import map_values
from emu_perception.recordings import BagReader, BagWriter
from emu_perception.recordings.image_messages import image_message


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    camera = Camera(canonical_focal_length=50.0, assumed_focal_ratio=0.9)
    return write_model(input_size=(32, 64), arguments={"width": 8}, camera=camera)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    with BagWriter(tmp_path / "drive") as bag:
        for i in range(2):
            bag.write("/camera", image_message(picture(i), i * 10**9), i * 10**9)
    return tmp_path / "drive"


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 64, 3), np.uint8)


def emu(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [*map(str, arguments), "--engine", "pytorch"])
    return found.exit_code, f"{found.output}{found.exception or ''}"


def test_points_alone_need_a_camera(drive: Path, model_file: Path, tmp_path: Path) -> None:
    annotate = ("bag", "annotate", drive, "--model", model_file, "--only", "points")
    status, output = emu(*annotate, "--out", tmp_path / "without")
    assert status == 1
    assert "points needs the camera" in output and "--focal-length" in output
    assert not (tmp_path / "without").exists()
    assert emu(*annotate, "--out", tmp_path / "with", "--fov", 70)[0] == 0
    with BagReader(tmp_path / "with") as reader:
        assert {t.name: t.count for t in reader.topics}["/points"] == 2


def test_a_given_focal_length_scales_the_depth(
    drive: Path, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--only", "depth/image", "--focal-length", 80, "--out", out)
    assert emu("bag", "annotate", drive, "--model", model_file, *arguments)[0] == 0
    predictor = Predictor.from_pretrained(model_file, engine="pytorch")
    expected = predictor.predict(picture(0), Intrinsics.from_focal_ratio(64, 32, 80 / 64))
    with BagReader(out) as reader:
        depth = map_values(reader.decode(next(reader.messages(["/depth/image"]))))
    np.testing.assert_allclose(depth, expected.depth, rtol=1e-4)


def test_evaluation_prints_metrics_and_the_report_has_a_legend(
    drive: Path, model_file: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for i in range(2):
        cv2.imwrite(str(labels / f"{i}.png"), np.full((32, 64), i, np.uint8))
    report = tmp_path / "report"
    arguments = ("--model", model_file, "--labels", labels, "--report", report, "--fov", 60)
    status, output = emu("bag", "evaluate", drive, *arguments, "--replicates", 50)
    assert status == 0, output
    lines = {line.split()[1]: line for line in output.splitlines() if line.startswith("classes:")}
    assert "mIoU" in lines and "[" in lines["mIoU"]
    page = (report / "report.html").read_text(encoding="utf-8")
    legend = page[page.index('<p class="legend">') :].partition("</p>")[0]
    assert "road" in legend and "rgb(128, 64, 128)" in legend
