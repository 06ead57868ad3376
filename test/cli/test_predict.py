"""`emu predict`: inputs, cameras, raw maps and panels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception import Intrinsics, Predictor, cli

HINT = "Depth scales with the focal length"


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    from emu_perception.inference.model_spec import Camera

    return write_model(
        input_size=(64, 96), camera=Camera(canonical_focal_length=50.0, assumed_focal_ratio=0.9)
    )


@pytest.fixture
def emu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["emu", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.delenv("EMU_DEBUG", raising=False)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        assert cv2.imwrite(str(images / f"{index}.png"), image)
    (images / "notes.txt").write_text("not an image")
    return images


def test_a_folder_is_predicted_image_by_image(
    emu: Callable[..., int], folder: Path, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert emu("predict", folder, "--model", model_file, "--out", out, "--every", 2) == 0
    assert sorted(f.name for f in out.iterdir()) == ["0.png", "2.png"]
    assert emu("predict", tmp_path, "--model", model_file, "--out", out) == 1


def test_a_video_is_predicted_frame_by_frame(
    emu: Callable[..., int], folder: Path, model_file: Path, tmp_path: Path
) -> None:
    video = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(5):
        writer.write(cv2.imread(str(folder / "0.png")))
    writer.release()
    out = tmp_path / "out"
    assert emu("predict", video, "--model", model_file, "--out", out, "--every", 3) == 0
    assert sorted(f.name for f in out.iterdir()) == ["drive_000000.png", "drive_000003.png"]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert emu("predict", tmp_path / "broken.mp4", "--model", model_file, "--out", out) == 1


def test_raw_maps_are_saved_in_their_units(
    emu: Callable[..., int], folder: Path, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--model", model_file, "--out", out, "--save", "npz", "--save", "png")
    assert emu("predict", folder / "1.png", *arguments, "--fov", 60, "--engine", "pytorch") == 0
    predictor = Predictor.from_pretrained(model_file, engine="pytorch")
    image = cv2.cvtColor(cv2.imread(str(folder / "1.png")), cv2.COLOR_BGR2RGB)
    expected = predictor.predict(image, Intrinsics.from_field_of_view(64, 48, 60))
    with np.load(out / "1.npz") as maps:
        np.testing.assert_array_equal(maps["labels"], expected.labels)
        np.testing.assert_allclose(maps["depth"], expected.depth, rtol=1e-5)
        np.testing.assert_allclose(maps["depth_std"], expected.depth_std, rtol=1e-5)
        assert 0 <= maps["semantic_uncertainty"].min() <= maps["semantic_uncertainty"].max() <= 1
        uncertainty = maps["semantic_uncertainty"]
    labels = cv2.imread(str(out / "1.labels.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, expected.labels)
    depth = cv2.imread(str(out / "1.depth.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    np.testing.assert_allclose(depth / 256, np.nan_to_num(expected.depth), atol=0.51 / 256)
    stored = cv2.imread(str(out / "1.semantic_uncertainty.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(stored / 65535, uncertainty, atol=1e-5)


def test_the_focal_length_is_printed(
    emu: Callable[..., int],
    folder: Path,
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, out = folder / "0.png", tmp_path / "out"
    assert emu("predict", image, "--model", model_file, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "0.png: 64 x 48, focal length 58 px (assumed: 0.9 x width), depth " in printed
    assert HINT in printed
    assert emu("predict", image, "--model", model_file, "--out", out, "--focal-length", 77) == 0
    printed = capsys.readouterr().out
    assert "focal length 77 px, depth" in printed and HINT not in printed


def test_intrinsics_come_from_files_of_any_size(
    emu: Callable[..., int],
    folder: Path,
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ros = tmp_path / "camera.yaml"
    ros.write_text(
        "image_width: 128\nimage_height: 96\n"
        "camera_matrix: {rows: 3, cols: 3, data: [90, 0, 63, 0, 91, 47, 0, 0, 1]}\n"
        "projection_matrix:\n  rows: 3\n  cols: 4\n"
        "  data: [100, 0, 63.5, 0, 0, 100, 47.5, 0, 0, 0, 1, 0]\n"
    )
    plain, other, wrong = (tmp_path / f"{n}.json" for n in ("plain", "other", "wrong"))
    plain.write_text(json.dumps({"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5}))
    size = {"width": 640, "height": 240}
    other.write_text(json.dumps({"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, **size}))
    wrong.write_text("[1, 2]")

    def run(file: Path, *more: object) -> tuple[int, str]:
        arguments = ("--model", model_file, "--out", tmp_path / "out", "--intrinsics", file, *more)
        status = emu("predict", folder / "0.png", *arguments)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    assert "focal length 50 px" in run(ros)[1]  # P, at half the size
    assert "focal length 60 px" in run(plain)[1]
    status, printed = run(other)
    assert status == 1 and "640 x 240" in printed and "64 x 48" in printed
    status, printed = run(wrong)
    assert status == 1 and "wrong.json holds no intrinsics" in printed
    assert run(plain, "--fov", 60)[0] == 2


def test_max_depth_fixes_the_colours(
    emu: Callable[..., int], folder: Path, model_file: Path, tmp_path: Path
) -> None:
    pictures = []
    for most in (20, 20, 80):
        arguments = ("--model", model_file, "--out", tmp_path / "out", "--max-depth", most)
        assert emu("predict", folder / "0.png", *arguments) == 0
        pictures.append(cv2.imread(str(tmp_path / "out" / "0.png")))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
