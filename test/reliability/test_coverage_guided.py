"""Fuzzing guided by coverage: a sound target ends quietly, a crash is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emu_perception.reliability import coverage_guided
from emu_perception.reliability.coverage_guided import TARGETS, judge, main, write_sound_inputs
from emu_perception.reliability.judge import Case

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("target", sorted({*TARGETS} - {"model", "onnx"}))
def test_the_first_inputs_are_accepted(target: str, tmp_path: Path) -> None:
    folder = tmp_path / "sound"
    folder.mkdir()
    write_sound_inputs(target, folder)
    suffix, make = TARGETS[target]
    files = sorted(folder.iterdir())[:5]
    assert files
    for file in files:
        make(file.read_bytes(), tmp_path / f"input{suffix}").run()


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_refusals_pass(target: str, tmp_path: Path) -> None:
    judge(target, b"\x00{[", tmp_path / f"input{TARGETS[target][0]}")


def test_a_crash_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(data: bytes, path: Path) -> Case:
        return Case(lambda: {}[data])

    monkeypatch.setitem(coverage_guided.TARGETS, "labels", (".yaml", make))
    with pytest.raises(AssertionError, match=r"(?s)crash: .*KeyError"):
        judge("labels", b"x", tmp_path / "input.yaml")


def test_the_targets_are_listed() -> None:
    with pytest.raises(SystemExit, match="compressed, model, onnx"):
        main(["jpeg"])


def test_atheris_changes_inputs(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed")
    command = [sys.executable, "-m", coverage_guided.__name__, "compressed", "-runs=300"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "Done 300 runs" in done.stderr
    assert "NEW" in done.stderr  # inputs that reached new lines
