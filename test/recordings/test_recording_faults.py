"""Recordings and mined frames under SIGKILL and on a full disk: whole, or as they were."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.recordings.image_messages import image_message
from emu_perception.recordings.reader import BagError, BagReader
from emu_perception.recordings.writer import BagWriter

LIMIT = 200_000


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 64, 3), np.uint8)


def write_drive(path: Path, images: int = 3, **options: Any) -> Path:
    with BagWriter(path, **options) as bag:
        for number in range(images):
            bag.write("/camera", image_message(picture(number), number), number)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def count(path: Path) -> int:
    with BagReader(path) as bag:
        return bag.image_topic("/camera").count


def kill_when_ready(code: str) -> None:
    """Run a program and kill it once it prints "ready"."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = iter(child.stdout.readline, "")
    assert any(line == "ready\n" for line in lines), "the program ended"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """Once called, files end at `LIMIT` bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_killed_recorder_leaves_the_earlier_recording(tmp_path: Path) -> None:
    path = write_drive(tmp_path / "drive")
    before = contents(path)
    kill_when_ready(f"""
import time
from emu_perception.recordings.image_messages import image_message
from emu_perception.recordings.writer import BagWriter
import numpy as np
with BagWriter({str(path)!r}, overwrite=True) as bag:
    for number in range(100):
        bag.write("/camera", image_message(np.zeros((90, 90, 3), np.uint8), number), number)
    print("ready", flush=True)
    time.sleep(600)
""")
    assert contents(path) == before
    write_drive(path, images=5, overwrite=True)
    assert count(path) == 5
    assert [each.name for each in tmp_path.iterdir()] == ["drive"]


@pytest.mark.parametrize("command", ["annotate", "mine"])
def test_a_killed_command_leaves_nothing_and_can_be_repeated(
    command: str, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    model = write_model(arguments={"width": 8}, input_size=(32, 64))
    drive, out = write_drive(tmp_path / "drive"), tmp_path / "out"
    arguments = [
        *("bag", command, str(drive), "--out", str(out)),
        *("--model", str(model), "--engine", "pytorch", "--device", "cpu"),
    ]
    kill_when_ready(f"""
import time
from typer.testing import CliRunner
from emu_perception.cli import app
from emu_perception.recordings import mined
from emu_perception.recordings.writer import BagWriter
def wait(*arguments):
    import sys
    print("ready", file=sys.__stdout__, flush=True)
    time.sleep(600)
BagWriter.write = mined.write_json = wait
CliRunner().invoke(app, {arguments!r})
""")
    assert not out.exists()
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    if command == "mine":
        assert json.loads((out / "manifest.json").read_text())["frames_read"] == 3
    else:
        assert count(out) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["drive", "out"]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_leaves_the_earlier_recording(
    storage: Literal["mcap", "sqlite3"],
    compress: bool,
    tmp_path: Path,
    full_disk: Callable[[], None],
) -> None:
    path = write_drive(tmp_path / "drive")
    before = contents(path)
    full_disk()
    with pytest.raises(BagError, match="cannot write the bag") as refused:
        write_drive(path, images=400, storage=storage, compress=compress, overwrite=True)
    assert "\n" not in str(refused.value)
    assert contents(path) == before
    with pytest.raises(BagError, match="cannot write the bag"):
        write_drive(tmp_path / "new", images=400, storage=storage, compress=compress)
    assert [each.name for each in tmp_path.iterdir()] == ["drive"]


def test_what_another_program_wrote_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "drive"
    with pytest.raises(BagError, match="was made by another program"), BagWriter(path) as bag:  # noqa: PT012
        bag.write("/camera", image_message(picture(0), 0), 0)
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    assert (path / "notes.txt").read_text() == "mine"
    assert count(tmp_path / ".drive.partial" / "drive") == 1
