"""A recording with everything wrong in it: what can be scored is, the rest is named and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.evaluation import Evaluator
from emu_perception.inference.predictor import Predictor
from emu_perception.recordings import BagReader, BagWriter
from emu_perception.recordings.frames import FrameReader
from emu_perception.recordings.image_messages import compressed_image_message, image_message
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.truth import TruthFolder

SECOND = 10**9


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    return write_model(input_size=(32, 64), arguments={"width": 8}, tasks=("semantic",))


def picture(seed: int, size: tuple[int, int] = (32, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write_labels(folder: Path, count: int) -> list[np.ndarray]:
    folder.mkdir()
    labels = []
    for i in range(count):
        labels.append(np.random.default_rng(i).integers(0, 11, (32, 64), np.uint8))
        cv2.imwrite(str(folder / f"{i:03d}.png"), labels[-1])
    return labels


def evaluate(*arguments: object) -> tuple[int, str]:
    command = ["bag", "evaluate", *map(str, arguments), "--engine", "pytorch", "--replicates", "0"]
    found = CliRunner().invoke(app, command)
    return found.exit_code, found.output


def test_figures_are_those_of_the_images_one_by_one(tmp_path: Path, model_file: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        for i in range(4):
            bag.write("/camera", image_message(picture(i), i * SECOND), i * SECOND)
    labels = write_labels(tmp_path / "labels", 4)
    status, output = evaluate(
        *(tmp_path / "drive", "--model", model_file, "--labels", tmp_path / "labels"),
        *("--report", tmp_path / "report"),
    )
    assert status == 0, output
    predictor = Predictor.from_pretrained(model_file, engine="pytorch")
    evaluator = Evaluator(predictor.label_set)
    for i, truth in enumerate(labels):
        maps = predictor.available_maps
        evaluator.update(predictor.predict(picture(i), maps=maps), truth)
    values = json.loads((tmp_path / "report" / "report.json").read_text())
    assert values["frames"] == 4
    assert values["problems"] == {}
    for key in ("miou", "nll", "ece", "ause"):
        expected = evaluator.result(0)[f"semantic.{key}"]
        assert values["semantic"][key] == pytest.approx(expected, abs=1e-9)


def test_what_is_wrong_is_named_and_counted(tmp_path: Path, model_file: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        for i, (stamp, size) in enumerate([(5, (32, 64)), (4, (32, 64)), (6, (64, 128))]):
            message = image_message(picture(i, size), stamp * SECOND)
            bag.write("/camera", message, i * SECOND)
        broken = image_message(picture(9), 7 * SECOND)
        broken.encoding = "rgb9"
        bag.write("/camera", broken, 3 * SECOND)
        bag.write("/camera", image_message(picture(4), 8 * SECOND), 4 * SECOND)
    write_labels(tmp_path / "labels", 4)
    status, output = evaluate(
        *(tmp_path / "drive", "--model", model_file, "--labels", tmp_path / "labels"),
        *("--report", tmp_path / "report"),
    )
    assert status == 3, output
    values = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {kind: found["count"] for kind, found in values["problems"].items()} == {
        "stamp going backwards": 1,
        "change of image size": 2,
        "unreadable image": 1,
        "image without labels": 1,
    }
    assert (values["frames"], values["frames_with_labels"]) == (4, 3)
    assert "rgb9" in output


def test_labels_without_an_image_are_counted(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        jpeg = compressed_image_message(b"no picture", "jpeg", 1)
        bag.write("/camera/compressed", jpeg, 1)
    write_labels(tmp_path / "labels", 2)
    problems = Problems()
    truth = TruthFolder.open("labels", tmp_path / "labels")
    with BagReader(tmp_path / "drive") as bag:
        assert list(FrameReader(bag, problems, folders=[truth]).frames()) == []
    counts = {kind: found["count"] for kind, found in problems.values().items()}
    assert counts == {"unreadable image": 1, "labels without an image": 1}


def test_a_failed_run_keeps_the_report_and_prints_the_reasons(
    tmp_path: Path, model_file: Path
) -> None:
    write_labels(tmp_path / "labels", 2)
    with BagWriter(tmp_path / "good") as bag:
        bag.write("/camera", image_message(picture(0), 0), 0)
    with BagWriter(tmp_path / "bad") as bag:
        for i, data in enumerate([b"DDS |" + bytes(123), b"\0\0\0\x1cftypavif" + bytes(99)]):
            bag.write("/camera", compressed_image_message(data, "jpeg", i), i)
    options = ("--model", model_file, "--labels", tmp_path / "labels")
    report = tmp_path / "report"
    assert evaluate(tmp_path / "good", *options, "--report", report)[0] == 3
    before = {file.name: file.read_bytes() for file in report.iterdir()}
    assert set(before) == {"frames.csv", "report.html", "report.json"}

    status, output = evaluate(tmp_path / "bad", *options, "--report", report)
    assert status == 1
    assert "2 x unreadable image: image 0: the compressed image" in output
    assert {file.name: file.read_bytes() for file in report.iterdir()} == before


@pytest.mark.parametrize("place", ["drive", "drive/report", "labels/report"])
def test_a_report_inside_the_input_is_refused(tmp_path: Path, model_file: Path, place: str) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        bag.write("/camera", image_message(picture(0), 0), 0)
    write_labels(tmp_path / "labels", 1)
    options = ("--model", model_file, "--labels", tmp_path / "labels")
    command = ["bag", "evaluate", *map(str, (tmp_path / "drive", *options))]
    found = CliRunner().invoke(app, [*command, "--report", str(tmp_path / place)])
    assert found.exit_code == 1 and "is inside the input" in str(found.exception)
    assert not (tmp_path / place / "frames.csv").exists()
