"""Every file of examples/ runs, and its output is right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception import Intrinsics, Predictor
from emu_perception.inference.model_names import resolve_model_path
from emu_perception.recordings import BagWriter
from emu_perception.recordings.image_messages import image_message

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    return write_model(input_size=(32, 64), arguments={"width": 8})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "street.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text
        assert path.name in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_predict(image: Path, model_file: Path) -> None:
    rows = run("predict.py", image, "--model", model_file, "--fov", 70).splitlines()[1:]
    fractions = [float(row[14:22].rstrip("% ")) for row in rows]
    assert sum(fractions) == pytest.approx(100, abs=0.05 * len(rows))


def test_point_cloud(image: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "cloud.ply"
    arguments = ("--model", model_file, "--fov", 70, "--max-std", 1000, "--out", out)
    run("point_cloud.py", image, *arguments)
    header, _, body = out.read_bytes().partition(b"end_header\n")
    fields = [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("r", "g", "b", "label")]
    vertices = np.frombuffer(body, np.dtype(fields))
    pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    expected = Predictor.from_pretrained(model_file).predict(
        pixels, Intrinsics.from_field_of_view(64, 32, 70)
    )
    assert expected.depth is not None and expected.labels is not None
    valid = np.isfinite(expected.depth)
    assert f"element vertex {valid.sum()}".encode() in header and len(vertices) == valid.sum()
    np.testing.assert_allclose(vertices["z"], expected.depth[valid], rtol=1e-3)
    np.testing.assert_array_equal(vertices["r"], pixels[valid][:, 0])
    # The left half of the image is at negative x.
    assert np.all((vertices["x"] < 0) == (np.nonzero(valid)[1] < 31.5))


def test_evaluate_bag(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    predictor = Predictor.from_pretrained(model_file)
    with BagWriter(tmp_path / "drive") as bag:
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 64, 3), np.uint8)
            bag.write("/camera", image_message(pixels, i * 10**9), i * 10**9)
            labels = predictor.predict(pixels, maps=("labels",)).labels
            assert cv2.imwrite(str(tmp_path / "labels" / f"{i}.png"), labels)
    arguments = ("--model", model_file, "--labels", tmp_path / "labels")
    printed = run("evaluate_bag.py", tmp_path / "drive", *arguments)
    figures = dict(line.split() for line in printed.splitlines())
    assert float(figures["semantic.pixel_accuracy"]) == 1


def test_deploy_onnx(image: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = resolve_model_path("street")
    printed = run("deploy_onnx.py", file, image, 45).splitlines()
    assert "torch imported: False" in printed
    (agreement,) = (line for line in printed if line.startswith("labels that agree"))
    assert float(agreement.split()[-1].rstrip("%")) > 99.5
