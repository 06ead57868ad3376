"""`emu export`: where the file goes, and that no file is overwritten by accident."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emu_perception import cli
from emu_perception.inference import export as exporting


def emu_export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of `emu export ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["emu", "export", *map(str, arguments)])
    monkeypatch.delenv("EMU_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def model_file(write_model: Callable[..., Path]) -> Path:
    """A model with an exported file in its folder, as the shipped ones have."""
    path = write_model(input_size=(64, 96))
    path.with_suffix(".onnx").write_bytes(b"shipped")
    return path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that would be written; the export itself ends with an error."""
    paths: list[Path] = []

    def write(model: object, path: Path, *_: object) -> None:
        paths.append(path)
        raise exporting.ExportError("not in this test")

    monkeypatch.setattr(exporting, "export", write)
    return paths


def test_the_file_is_written_to_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_file: Path, written: list[Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    emu_export(monkeypatch, "--model", model_file)
    assert [path.resolve() for path in written] == [tmp_path / "tiny.onnx"]


@pytest.mark.parametrize("named", [(), ("tiny.onnx",)])
def test_an_existing_file_is_overwritten_only_with_force(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model_file: Path,
    written: list[Path],
    named: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.onnx").write_bytes(b"mine")
    assert emu_export(monkeypatch, *named, "--model", model_file) == 1
    message = "Error: tiny.onnx exists: name another file, or replace it with --force"
    assert capsys.readouterr().err.splitlines() == [message]
    assert not written
    emu_export(monkeypatch, *named, "--model", model_file, "--force")
    assert written
    assert model_file.with_suffix(".onnx").read_bytes() == b"shipped"
