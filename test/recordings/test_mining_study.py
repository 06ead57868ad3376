"""A study of mining: each row labels its own frames of the pool, and nothing else differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.experiments.study_config import Unit
from emu_perception.recordings import BagReader
from emu_perception.recordings.image_messages import rgb
from emu_perception.recordings.mining_study import (
    MiningStudy,
    every_nth,
    write_drive,
)
from emu_perception.training.config_file import load_config
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import ConfigError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two drives in CamVid's layout: 3 and 8 frames."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for drive, count in (("0001TP", 3), ("0016E5", 8)):
            for i in range(count if split == "train" else 1):
                image = np.full((24, 32, 3), 20 * i + (drive == "0001TP"), np.uint8)
                for kind, values in (("images", image), ("labels", image[..., 0] * 0)):
                    cv2.imwrite(str(tmp_path / split / kind / f"{drive}_{i:03d}.png"), values)
    return tmp_path


def study(camvid: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> MiningStudy:
    monkeypatch.setenv("CAMVID", str(camvid))
    file = REPOSITORY / "config" / "studies" / "mining_camvid.yaml"
    return load_config(file, MiningStudy, output=str(camvid / "out"), **changes)


def test_rows_differ_in_their_frames_alone(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = study(camvid, monkeypatch, count=3)
    plain = config.training(config.row("no frames"), Unit(1))
    chosen = {}
    for name in ("random", "every n-th"):
        row = config.row(name)
        training = config.training(row, Unit(1))
        *known, pool = training.data.train
        assert [d.model_copy(update={"proportion": 1.0}) for d in known] == plain.data.train
        assert pool.proportion / sum(d.proportion for d in training.data.train) == config.share
        assert training.optimizer == plain.optimizer and training.trainer == plain.trainer
        assert training.model == plain.model
        chosen[name] = pool.options["frames"]
        assert len(set(chosen[name])) == 3
        dataset = open_dataset(pool)
        assert [dataset.name(i) for i in range(3)] == chosen[name]
        assert {dataset.clip(i) for i in range(3)} == {"0016E5"}
        # Chosen once: an interrupted study goes on with the same frames.
        kept = json.loads((config.folder(row, Unit(1)) / "frames.json").read_text())["names"]
        assert kept == chosen[name] == config.chosen(row, Unit(1))
    with pytest.raises(ConfigError, match=r"chosen by other settings \(count\)"):
        study(camvid, monkeypatch, count=4).chosen(config.row("random"), Unit(1))
    with pytest.raises(ValueError, match="the pool has 8 frames, 9 are wanted"):
        study(camvid, monkeypatch, count=9).chosen(config.row("random"), Unit(2))


def test_the_pool_is_a_recording_to_mine(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(study(camvid, monkeypatch).pool)
    write_drive(camvid / "drive", dataset, rate=2.0)
    with BagReader(camvid / "drive") as bag:
        messages = list(bag.messages())
        assert bag.duration == 3.5
        pictures = [rgb(bag.decode(message)) for message in messages]
    assert [p.mean().round() for p in pictures] == [s.image.mean() for s in dataset]


def test_rows_that_choose_say_where_they_start(
    camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="row 'random' chooses frames"):
        study(camvid, monkeypatch, rows=[{"name": "random", "frames": "random"}], compare=[])


@given(st.integers(1, 300), st.data())
def test_every_nth_is_spread_evenly(frames: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, frames))
    phase = data.draw(st.floats(0, 1, exclude_max=True))
    chosen = every_nth(frames, count, phase)
    assert len(set(chosen)) == count and min(chosen) >= 0 and max(chosen) < frames
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
