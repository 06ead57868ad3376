"""Checkpoints: no code from them, one line for what cannot be used, nothing lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

import tiny

from emu_perception.networks.pretrained import read_state
from emu_perception.training import run
from emu_perception.training.callbacks import AtomicCheckpointIO
from emu_perception.training.settings import ConfigError


class Command:
    """Unpickling it runs a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("place", ["a file", "the run's own"])
def test_a_checkpoint_runs_no_code(tmp_path: Path, place: str) -> None:
    marker, folder = tmp_path / "marker", tmp_path / "run"
    path = folder / "checkpoints" / "last.ckpt"
    if place == "a file":
        path = tmp_path / "given.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    kept = folder / "kept.partial"
    kept.touch()
    state = {"state_dict": {}, "loops": {}, "callbacks": {"x": Command(f"touch {marker}")}}
    torch.save(state, path)
    config = tiny.config(tmp_path / "no_data", folder)
    resume = "auto" if place == "the run's own" else str(path)
    with pytest.raises(ConfigError, match=r"holds '\S*system'") as refused:
        run.train(config, resume, progress=False)
    assert not marker.exists() and kept.exists() and path.exists()
    assert "\n" not in str(refused.value)


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    whole = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"x": torch.zeros(1000)}, "loops": {}}, whole)
    assert AtomicCheckpointIO().load_checkpoint(whole)["loops"] == {}
    for content in (b"", b"text", whole.read_bytes()[:1000], os.urandom(5000)):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read as a checkpoint") as refused:
            AtomicCheckpointIO().load_checkpoint(path)
        assert "\n" not in str(refused.value)
        with pytest.raises(ValueError, match="cannot be read as weights") as refused_weights:
            read_state(path)
        assert "\n" not in str(refused_weights.value)
    torch.save([1, 2], path)
    with pytest.raises(ConfigError, match="not a checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "nowhere.ckpt")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files end at 100 kB: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {"x": torch.ones(10)}, "loops": {}}, path)
    with pytest.raises(OSError) as refused:  # noqa: PT011
        io.save_checkpoint({"state_dict": {"x": torch.zeros(100_000)}, "loops": {}}, path)
    assert "\n" not in str(refused.value)
    assert torch.equal(io.load_checkpoint(path)["state_dict"]["x"], torch.ones(10))
    assert list(tmp_path.iterdir()) == [path]


def test_impossible_settings_of_the_trainer_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a positive number"):
        tiny.config(tmp_path, tmp_path / "run", trainer={"devices": -7})
    data = tiny.write_data(tmp_path / "data", 2)
    for name, value in (("accelerator", "abacus"), ("precision", "7"), ("strategy", "none")):
        config = tiny.config(data, tmp_path / "run", trainer={name: value})
        with pytest.raises(ConfigError, match="trainer: ") as refused:
            run.train(config, progress=False)
        assert "\n" not in str(refused.value)
