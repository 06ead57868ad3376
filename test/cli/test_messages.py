"""Mistakes at the command line: the message tells in words what was wrong and what is expected."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception import cli
from emu_perception.inference.engines.base import choose_device


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "my.png"
    assert cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    return path


def message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """What `emu ARGUMENTS` prints about a mistake, without frames and line breaks."""
    monkeypatch.setattr(sys, "argv", ["emu", *map(str, arguments)])
    monkeypatch.delenv("EMU_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (1, 2)
    printed = re.sub(r"[│╭╮╰╯─\s]+", " ", capsys.readouterr().err)
    assert "Traceback" not in printed
    return printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fov", 200), "--fov must be from 1 to 179 degrees, got 200"),
        (("--focal-length", 0), "--focal-length must be at least 1 pixel, got 0"),
        (("--focal-length", "nan"), "--focal-length must be at least 1 pixel, got nan"),
        (("--save", "tiff"), "--save must be npz or png, got 'tiff'"),
        (("--device", "gpu"), "device must be auto, cpu, cuda or tensorrt, got 'gpu'"),
    ],
)
def test_options_of_predict_are_explained(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    image: Path,
    options: tuple[object, ...],
    words: str,
) -> None:
    assert words in message(monkeypatch, capsys, "predict", image, *options)


def test_devices_of_a_network_are_listed() -> None:
    with pytest.raises(ValueError, match=r"^device must be auto, cpu or cuda, got 'gpu'$"):
        choose_device("gpu")


@pytest.mark.parametrize("name", ["drive", "drive.mcap", "drive.db3"])
def test_predict_names_the_commands_that_read_recordings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"recording")
    else:
        path.mkdir()
        (path / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    printed = message(monkeypatch, capsys, "predict", path)
    assert f"{path} is a recording" in printed
    assert "`emu bag annotate`" in printed and "`emu demo --input`" in printed


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "there is no such file or folder"),
        (errno.EACCES, "permission denied"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_files_are_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    image: Path,
    number: int,
    words: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "Input/output error", "results")

    monkeypatch.setattr(Path, "mkdir", fail)
    assert message(monkeypatch, capsys, "predict", image).strip() == f"Error: results: {words}"


def test_one_scene_is_singular(tmp_path: Path) -> None:
    arguments = ["scenes", "-o", str(tmp_path), "-n", "1", "--size", "96x64"]
    shown = CliRunner().invoke(cli.app, arguments)
    assert "1 scene in" in shown.output


def test_commands_are_grouped_by_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(cli.app, ["--help"]).output
    found = re.findall(r"─ (\w+) ─", shown)
    assert found == ["Options", "Use", "Recordings", "Train", "Evaluate", "Develop"]
