"""Frames worth labelling: uncertain, unlike one another, apart in time."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.recordings import BagWriter
from emu_perception.recordings.image_messages import image_message
from emu_perception.recordings.mine import (
    Candidate,
    CandidatePool,
    choose,
)

SECOND = 10**9


def test_the_choice_worked_by_hand() -> None:
    # Two scenes: a (frames 0-2) and b (3, 4). The most uncertain frame is 1; its neighbours look
    # the same, so the better of b comes next although both are less uncertain.
    scores = np.array([2.0, 3.0, 2.9, 1.0, 1.5])
    features = np.array([[0.0], [0.0], [0.0], [5.0], [5.0]])
    stamps = np.arange(5) * SECOND
    assert choose(scores, features, stamps, 2, 0) == [1, 4]
    # Nothing is new after that: the most uncertain of what is left.
    assert choose(scores, features, stamps, 3, 0) == [1, 4, 2]
    assert choose(scores, features, stamps, 5, 2 * SECOND) == [1, 4]
    assert choose(scores, features, stamps, 9, 0) == [1, 4, 2, 0, 3]


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5), st.integers(0, 2**31))
def test_chosen_frames_are_apart(frames: int, count: int, gap: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    stamps = generator.integers(0, 40, frames)  # in no order: stamps may go backwards
    scores = generator.random(frames)
    chosen = choose(scores, generator.random((frames, 3)), stamps, count, gap)
    assert chosen[0] == int(np.argmax(scores))
    assert len(set(chosen)) == len(chosen) <= count
    times = np.sort(stamps[chosen])
    assert (np.diff(times) >= gap).all()
    if len(chosen) < min(count, frames):  # then nothing else would have been far enough
        left = np.delete(stamps, chosen)
        assert (np.abs(left[:, None] - times[None]).min(axis=1) < gap).all()


def test_a_long_recording_keeps_the_most_uncertain_of_every_stretch() -> None:
    pool = CandidatePool(capacity=16)
    values = np.random.default_rng(0).random(1000)
    values[777] = 2.0
    for i, value in enumerate(values):
        pool.add(Candidate(i, i * SECOND, {"u": float(value)}, np.array([float(i)])))
    assert pool.frames == 1000
    chosen = pool.choose(1000, 0.0)
    assert 8 <= len(chosen) <= 16
    assert chosen[0].index == 777
    assert pool.score(chosen[0]) == pytest.approx(2.0 / values.mean())
    assert np.diff(sorted(c.index for c in chosen)).max() < 1000 / 4


def test_scores_weigh_tasks_alike() -> None:
    pool = CandidatePool()
    frames = [{"a": 1.0, "b": 300.0}, {"a": 3.0, "b": 100.0}, {"a": 2.0, "b": 200.0}]
    for i, uncertainty in enumerate(frames):
        pool.add(Candidate(i, i, uncertainty, np.zeros(1)))
    assert [pool.score(c) for c in pool.choose(3, 0.0)] == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("architecture", ["segdepthformer", "deep_ensemble"])
def test_frames_are_written_for_labelling(
    tmp_path: Path, architecture: str, write_model: Callable[..., Path]
) -> None:
    arguments = {"width": 8} | ({"members": 2} if architecture == "deep_ensemble" else {})
    model_file = write_model(architecture=architecture, arguments=arguments, input_size=(32, 64))
    generator = np.random.default_rng(1)
    pictures = [generator.integers(0, 256, (32, 64, 3), np.uint8) for _ in range(5)]
    with BagWriter(tmp_path / "drive") as bag:
        for i, picture in enumerate(pictures):
            message = image_message(picture, i * SECOND)
            if i == 2:
                message.encoding = "rgb9"
            bag.write("/camera", message, i * SECOND)
    command = [
        *("bag", "mine", str(tmp_path / "drive"), "--out", str(tmp_path / "out")),
        *("--model", str(model_file), "--engine", "pytorch"),
        *("--top", "3", "--min-gap", "1.5"),
    ]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 3, found.output  # the broken image
    assert "unreadable image" in found.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    frames = manifest["frames"]
    assert manifest["frames_read"] == 4
    assert [c["name"] for c in manifest["classes"]] == list(load_label_set("camvid").names)
    stamps = [frame["stamp_ns"] for frame in frames]
    assert stamps == [frame["index"] * SECOND for frame in frames]
    assert 1 <= len(frames) <= 2
    assert (np.diff(sorted(stamps)) >= 1.5 * SECOND).all()
    assert frames[0]["score"] == max(frame["score"] for frame in frames)
    members = architecture == "deep_ensemble"
    names = ["semantic_epistemic", "depth_epistemic_std"]
    kinds = names if members else ["semantic_uncertainty", "depth_std"]
    predictor = Predictor.from_pretrained(model_file, engine="pytorch")
    for frame in frames:
        assert frame["topic"] == "/camera"
        assert list(frame["uncertainty_pictures"]) == kinds
        # Means over depths of all distances are shares of them.
        assert list(frame["uncertainty"]) == [kinds[0], f"relative_{kinds[1]}"]
        picture = pictures[frame["index"]]
        image = cv2.imread(str(tmp_path / "out" / frame["image"]))[..., ::-1]
        np.testing.assert_array_equal(image, picture)
        labels = cv2.imread(str(tmp_path / "out" / frame["labels"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, predictor.predict(picture).labels)
        for drawn in frame["uncertainty_pictures"].values():
            assert cv2.imread(str(tmp_path / "out" / drawn["file"])).shape == (32, 64, 3)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "exists already" in str(again.exception)


def test_a_full_disk_ends_with_an_error(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    model_file = write_model(arguments={"width": 8}, input_size=(32, 64))
    picture = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    with BagWriter(tmp_path / "drive") as bag:
        bag.write("/camera", image_message(picture, 0), 0)
    command = [
        *("bag", "mine", str(tmp_path / "drive"), "--out", str(tmp_path / "out")),
        *("--model", str(model_file), "--engine", "pytorch"),
    ]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        found = CliRunner().invoke(app, command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.exit_code == 1 and isinstance(found.exception, OSError)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
