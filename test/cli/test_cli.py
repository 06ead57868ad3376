"""The command line: what it prints, and that mistakes are answered with one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception import cli
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set


def emu(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit status of `emu ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["emu", *map(str, arguments)])
    monkeypatch.delenv("EMU_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    return write_model(
        input_size=(64, 96), license="CC0-1.0", metrics={"camvid val": {"mIoU": 0.123456}}
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['emu', '--help']\n"
        "from emu_perception import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'rclpy', 'rosbags', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "predict", "scenes", "model"):
        assert command in done.stdout


def test_model_info_tells_what_is_in_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_file: Path
) -> None:
    assert emu(monkeypatch, "model", "info", model_file) == 0
    printed = capsys.readouterr().out
    for text in ("segdepthformer", "mit_b0", "96 x 64", "bicyclist", "CC0-1.0", "0.1235"):
        assert text in printed
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone="mit_b0",
        tasks=("semantic", "depth"),
        arguments={"width": 16},
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
    )
    assert f"{sum(p.numel() for p in spec.build().parameters()):,}" in printed


def test_model_info_obeys_no_escapes_and_no_markup(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_model: Callable[..., Path],
) -> None:
    path = write_model(
        description="\x1b]0;title\x07 [red]x[/red]", metrics={"[link=x]\x1b[2J": "\x9b1m"}
    )
    assert emu(monkeypatch, "model", "info", path) == 0
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
    assert "\\x1b]0;title\\x07 [red]x[/red]" in printed and "[link=x]\\x1b[2J" in printed


def test_model_info_describes_the_default_model_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["emu", "model", "info"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "segdepthformer" in printed and "ONNX" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["model", "info", "nowhere.safetensors"], "there is no model file 'nowhere.safetensors'"),
        (["scenes", "--kind", "moon"], "unknown kind of scene 'moon'"),
        (
            ["data", "check", "-d", "scenes", "--root", ".", "--option", "size=5"],
            "option size=5 does not suit",
        ),
        (
            ["data", "check", "-d", "ddad", "--root", ".", "--option", "max_depth=x"],
            "option max_depth='x' does",
        ),
        (
            ["data", "check", "-d", "scenes", "--root", ".", "--option", "split=test"],
            "has no option 'split'",
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert emu(monkeypatch, *arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert complaint in printed
    assert "Traceback" not in printed


def test_a_missing_extra_is_named(tmp_path: Path, model_file: Path) -> None:
    code = (
        "import sys; sys.modules['rosbags'] = None\n"
        f"sys.argv = ['emu', 'demo', '--model', {str(model_file)!r}]\n"
        "from emu_perception import cli; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Error: rosbags is not installed" in done.stderr
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["emu", "--debug", "model", "info", "nowhere.safetensors"])
    monkeypatch.setenv("EMU_DEBUG", "")
    with pytest.raises(ValueError, match="nowhere"):
        cli.main()


@pytest.mark.parametrize("size", ["640", "0x10", "axb", "640x99999"])
def test_sizes_are_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert emu(monkeypatch, "scenes", "--size", size) == 2
    assert "640x480" in capsys.readouterr().err


def test_predict_draws_a_panel_of_each_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_file: Path
) -> None:
    files = []
    for name, size in (("a.png", (48, 64)), ("b.jpg", (48, 64))):
        files.append(tmp_path / name)
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        assert cv2.imwrite(str(files[-1]), image)
    out = tmp_path / "out"
    assert emu(monkeypatch, "predict", *files, "--model", model_file, "--out", out) == 0
    assert sorted(f.name for f in out.iterdir()) == ["a.png", "b.png"]
    assert cv2.imread(str(out / "a.png")).shape[1] > 1000


def test_predict_replaces_no_image_and_no_panel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a/x.png", "b/x.jpg")]
    for file in files:
        file.parent.mkdir()
        assert cv2.imwrite(str(file), np.zeros((48, 64, 3), np.uint8))
    before = files[0].read_bytes()
    assert emu(monkeypatch, "predict", files[0], "--out", tmp_path / "a") == 1
    assert "x.png is one of the images" in capsys.readouterr().err
    assert files[0].read_bytes() == before
    assert emu(monkeypatch, "predict", *files, "--out", tmp_path / "out") == 1
    assert "would both be x.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_demo_replaces_nothing_but_a_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("drive", "recording"):
        bag = tmp_path / name / name
        bag.mkdir(parents=True)
        (bag / "metadata.yaml").write_text("mine")
        assert emu(monkeypatch, "demo", "--input", bag, "--out", bag.parent) == 1
        assert "lies where the demo records" in capsys.readouterr().err
        assert emu(monkeypatch, "demo", "--out", bag.parent) == 1
        assert "is not an earlier demo's" in capsys.readouterr().err
        assert (bag / "metadata.yaml").read_text() == "mine"


def test_predict_names_what_is_no_image(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model_file: Path,
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    out = tmp_path / "out"
    assert emu(monkeypatch, "predict", file, "--model", model_file, "--out", out) == 1
    assert "notes.txt: not an image file" in capsys.readouterr().err


def test_scenes_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert emu(monkeypatch, "scenes", "-o", tmp_path, "-n", "2", "--size", "96x64") == 0
    names = sorted(f.name for f in tmp_path.iterdir())
    assert names == ["overview.png", "street_0000.png", "street_0001.png"]
