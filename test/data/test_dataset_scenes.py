"""Rendered scenes: different in every split, kept once rendered, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emu_perception.camera import Intrinsics
from emu_perception.data import (
    build_dataset,
    check_dataset,
    make_loader,
)
from emu_perception.data import scenes as module
from emu_perception.data.geometry import normals_from_depth
from emu_perception.data.sample import DataError
from emu_perception.data.scenes import SceneDataset
from emu_perception.scenes import SceneFrame

SIZE = (24, 32)


def sketch(
    seed: int,
    size: tuple[int, int],
    kind: str,
    *,
    odd_objects: bool,
    close_vehicles: bool = False,
    device: object = None,
) -> SceneFrame:
    """In place of the renderer, which takes a second: noise, the same for the same arguments."""
    rng = np.random.default_rng(seed)
    return SceneFrame(
        image=rng.integers(0, 256, (*size, 3), np.uint8),
        labels=rng.integers(0, 11, size, np.uint8),
        depth=rng.uniform(1, 90, size).astype(np.float32),
        normals=np.broadcast_to(np.float32([0, 0, -1]), (*size, 3)).copy(),
        edges=rng.random(size) < 0.1,
        intrinsics=Intrinsics(rng.uniform(20, 30), 25.0, 15.5, 11.5, size[1], size[0]),
        odd=np.full(size, odd_objects),
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.scenes, "render_scene", sketch)


def test_a_rendered_street() -> None:
    sample = SceneDataset("val", size=(96, 128), count=1, seed=3)[0]
    sample.check(11)
    assert sample.tasks == ("semantic", "depth", "normals", "edges")
    found = normals_from_depth(sample.depth, sample.intrinsics)
    both = (found != 0).any(axis=-1) & (sample.normals != 0).any(axis=-1)
    assert both.mean() > 0.2
    cosine = np.einsum("ij,ij->i", found[both], sample.normals[both])
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert np.median(degrees) < 2
    assert np.mean(degrees < 15) > 0.75


@pytest.mark.usefixtures("quick")
def test_scenes_are_kept_by_several_processes(tmp_path: Path) -> None:
    dataset = SceneDataset("train", size=SIZE, count=5, folder=tmp_path)
    dataset[2]
    steps: list[tuple[int, int]] = []
    dataset.prepare(workers=2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(list(tmp_path.rglob("*"))) == 6  # with their folder; nothing half-written
    for index, sample in enumerate(dataset):
        frame = sketch(dataset.scene_seed(index), SIZE, "street", odd_objects=False, device="cpu")
        for field in ("image", "labels", "depth", "normals", "edges"):
            np.testing.assert_array_equal(getattr(sample, field), getattr(frame, field))
        assert sample.intrinsics == frame.intrinsics
        assert sample.odd is None
    odd = SceneDataset("train", size=SIZE, count=5, folder=tmp_path, odd_objects=True)
    assert odd[0].odd.all()


@pytest.mark.usefixtures("quick")
def test_a_broken_scene_is_named(tmp_path: Path) -> None:
    dataset = SceneDataset("train", size=SIZE, count=2, folder=tmp_path)
    dataset.prepare()
    assert check_dataset("scenes", tmp_path, size=SIZE, count=2) == []
    (nothing,) = check_dataset("scenes", tmp_path, count=2)
    assert nothing.fatal and "nothing to read with the options" in nothing.what
    assert "size=(256, 512), count=2" in nothing.what
    kept = sorted(tmp_path.rglob("*.npz"))
    kept[0].write_bytes(kept[0].read_bytes()[:500])
    problems = check_dataset("scenes", tmp_path, size=SIZE, count=2)
    assert [Path(p.where) for p in problems] == [kept[0]]
    assert "delete it" in problems[0].what
    with pytest.raises(DataError, match=kept[0].name):
        list(dataset)


@pytest.mark.usefixtures("quick")
def test_what_is_kept_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = SceneDataset("train", size=SIZE, count=1, folder=tmp_path)
    first = dataset[0]

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(module.scenes, "render_scene", refuse)
    np.testing.assert_array_equal(dataset[0].image, first.image)
    with pytest.raises(AssertionError, match="rendered again"):
        SceneDataset("train", size=SIZE, count=1, folder=tmp_path, seed=1)[0]
    monkeypatch.setattr(module.scenes, "RENDERER_VERSION", 2)
    with pytest.raises(AssertionError, match="rendered again"):
        SceneDataset("train", size=SIZE, count=1, folder=tmp_path)[0]


def test_splits_sets_and_epochs_share_no_scene() -> None:
    seeds = [
        SceneDataset(split, count=50, seed=seed).scene_seed(i)
        for split in ("train", "val", "test", "calibration")
        for seed in range(3)
        for i in range(50)
    ]
    endless = SceneDataset("train", count=50, endless=True)
    for epoch in range(3):
        endless.set_epoch(epoch)
        seeds += [endless.scene_seed(i) for i in range(50)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.usefixtures("quick")
def test_endless_scenes_in_a_loader(tmp_path: Path) -> None:
    dataset = build_dataset("scenes", tmp_path, "train", size=SIZE, count=2, endless=True)
    loader = make_loader(dataset, 2, shuffle=False, workers=1)
    names = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        names.append(tuple(batch["name"]))
    assert names == [
        ("train_0_0_000000", "train_0_0_000001"),
        ("train_0_1_000000", "train_0_1_000001"),
    ]
    assert list(tmp_path.iterdir()) == []


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no split 'tests'; they have train, val, test"):
        build_dataset("scenes", None, "tests")
    with pytest.raises(ValueError, match="no scenes 'forest'; there are street, room"):
        build_dataset("scenes", None, "test", scene="forest")
    with pytest.raises(ValueError, match="at least one, got 0"):
        build_dataset("scenes", None, "test", count=0)


def test_a_check_of_drives_renders_nothing(tmp_path: Path) -> None:
    options = {"size": [32, 64], "drives": 1, "frames": 3}
    (nothing,) = check_dataset("scene_drives", tmp_path, **options)
    assert "holds nothing to read" in str(nothing) and not list(tmp_path.iterdir())
    build_dataset("scene_drives", tmp_path, "val", **options)[0]
    assert check_dataset("scene_drives", tmp_path, **options) == []
    broken = sorted(tmp_path.rglob("*.npz"))[1]
    broken.write_bytes(broken.read_bytes()[:50])
    (problem,) = check_dataset("scene_drives", tmp_path, **options)
    assert str(broken) in str(problem)
