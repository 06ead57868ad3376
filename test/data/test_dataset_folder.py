"""Own folders as data sets: labels, depth and cameras, mapped, stretched and chosen by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.data import (
    Mixture,
    Relabelled,
    Source,
    build_dataset,
    catalogue,
    check_dataset,
    dataset_names,
)
from emu_perception.data.contents import count_contents
from emu_perception.data.sample import DataError
from emu_perception.labels import LabelSet, load_label_set
from emu_perception.plugins import load_plugins


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):
        name = f"{number:04d}"
        write(tmp_path / "images" / f"{name}.png", rng.integers(0, 256, (8, 8, 3), np.uint8))
        labels = rng.integers(0, 3, (8, 8)).astype(np.uint8)
        labels[0, 0] = 255
        write(tmp_path / "labels" / f"{name}.png", labels)
    write(tmp_path / "depth" / "0001.png", np.full((8, 8), 512, np.uint16))
    (tmp_path / "intrinsics.json").write_text(json.dumps({"0001": [9, 9, 4, 4]}))
    return tmp_path


def build(folder: Path, **options: Any) -> Any:
    return build_dataset("folder", folder, "all", **options)


def test_any_of_labels_depth_and_camera(folder: Path) -> None:
    dataset = build(folder, label_set="cityscapes", depth_scale=0.01)
    assert len(dataset) == 4 and dataset.tasks == ("semantic", "depth")
    assert dataset[0].depth is None and dataset[0].intrinsics is None
    sample = dataset[1]
    assert sample.depth == pytest.approx(5.12) and sample.intrinsics.fx == 9
    assert build(folder).tasks == ("depth",)


def test_one_camera_for_all_images(folder: Path) -> None:
    camera = build(folder, camera=[20, 21, 3, 4])[0].intrinsics
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (20, 21, 3, 4)
    (folder / "intrinsics.json").write_text(json.dumps({"all": [7, 7, 4, 4]}))
    assert build(folder, camera=[20, 21, 3, 4])[0].intrinsics.fx == 7


def test_stretched_to_the_size_that_the_camera_is_given_for(folder: Path) -> None:
    sample = build(folder, label_set="cityscapes", stretch=[8, 16])[1]
    assert sample.image.shape == (8, 16, 3)
    stored = cv2.imread(str(folder / "labels" / "0001.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(sample.labels, np.repeat(stored, 2, axis=1))
    assert sample.depth.shape == (8, 16)
    assert (sample.intrinsics.width, sample.intrinsics.fx) == (16, 9)


@pytest.mark.parametrize(
    ("pattern", "every", "names"),
    [
        ("0001..0002", 1, ["0001", "0002"]),
        (["0000", "*3"], 1, ["0000", "0003"]),
        (None, 2, ["0000", "0002"]),
    ],
)
def test_images_chosen_by_name(
    folder: Path, pattern: str | list[str] | None, every: int, names: list[str]
) -> None:
    dataset = build(folder, pattern=pattern, every=every)
    assert [dataset.name(i) for i in range(len(dataset))] == names


def test_ids_become_classes_groups_or_unlabelled(folder: Path) -> None:
    classes = load_label_set("cityscapes")
    mapping = {"0": "sky", "1": ["car", "bus"], "2": None}
    dataset = build(folder, label_set="cityscapes", mapping=mapping)
    group = (classes.index("car"), classes.index("bus"))
    assert dataset.label_groups == (group,)
    stored = cv2.imread(str(folder / "labels" / "0000.png"), cv2.IMREAD_UNCHANGED)
    expected = np.full((8, 8), 255)
    expected[stored == 0] = classes.index("sky")
    expected[stored == 1] = len(classes)
    assert np.array_equal(dataset[0].labels, expected)


def test_unknown_ids_and_classes_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no class 'cart'; it has road"):
        build(folder, label_set="cityscapes", mapping={0: "cart"})
    dataset = build(folder, label_set="cityscapes", mapping={0: "sky"})
    with pytest.raises(DataError, match=r"0000\.png: unknown label ids: 1"):
        dataset[0]
    write(folder / "labels" / "0003.png", np.full((8, 8), 19, np.uint8))
    found = check_dataset("folder", folder, label_set="cityscapes")
    assert ["0003" in str(problem) and "19 (64 pixels)" in str(problem) for problem in found]


def test_nothing_that_matches_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="holds no image that matches 'x'"):
        build(folder, pattern="x")
    with pytest.raises(ValueError, match="split 'all' only"):
        build_dataset("folder", folder, "val")


def test_coarse_classes_become_groups(folder: Path) -> None:
    coarse = LabelSet(
        "coarse",
        ("flat", "vehicle", "sky"),
        ((0, 0, 0), (1, 1, 1), (2, 2, 2)),
        finer={"cityscapes": {"flat": ("road", "sidewalk"), "vehicle": ("car",)}},
    )
    dataset = build(folder, label_set="cityscapes")
    dataset.label_set = coarse
    fine = load_label_set("cityscapes")
    relabelled = Relabelled(dataset, fine)
    assert relabelled.label_groups == ((fine.index("road"), fine.index("sidewalk")),)
    stored, labels = dataset[0].labels, relabelled[0].labels
    assert set(labels[stored == 0]) == {len(fine)}
    assert set(labels[stored == 1]) == {fine.index("car")}
    assert set(labels[stored == 2]) == {fine.index("sky")}


def test_a_mixture_unites_the_groups_of_its_data_sets(folder: Path) -> None:
    one = build(
        folder, label_set="cityscapes", mapping={0: ["road", "sidewalk"], 1: "sky", 2: "car"}
    )
    two = build(folder, label_set="cityscapes", mapping={0: ["car", "bus"], 1: "sky", 2: "car"})
    mixture = Mixture([Source(one, 1.0), Source(two, 1.0)], 16)
    assert mixture.label_groups == tuple(sorted((*one.label_groups, *two.label_groups)))
    seen = set()
    for index in range(16):
        source = mixture.order().sources[index]
        (group,) = (one, two)[source].label_groups
        coarse = {int(i) for i in np.unique(mixture[index].labels)} & {19, 20}
        assert coarse == {19 + mixture.label_groups.index(group)}
        seen |= coarse
    assert seen == {19, 20}


def test_the_check_counts_what_there_is(folder: Path) -> None:
    options = [
        "--option",
        "label_set=cityscapes",
        "--option",
        "mapping={0: sky, 1: [car, bus], 2: null}",
    ]
    result = CliRunner().invoke(
        app, ["data", "check", "-d", "folder", "--root", str(folder), *options]
    )
    assert result.exit_code == 0
    assert "4 images, 4 with semantic, 1 with depth, 1 with a camera, 8 x 8" in result.output
    counts = count_contents(
        build(folder, label_set="cityscapes", mapping={0: "sky", 1: ["car", "bus"], 2: None})
    )
    stored = np.stack([cv2.imread(str(p), -1) for p in sorted((folder / "labels").iterdir())])
    zeros, ones = (stored == 0).sum(), (stored == 1).sum()
    assert counts.classes == pytest.approx(
        {"sky": zeros / (zeros + ones), "car or bus": ones / (zeros + ones)}
    )
    (folder / "labels" / "0002.png").write_bytes(b"")
    result = CliRunner().invoke(
        app, ["data", "check", "-d", "folder", "--root", str(folder), *options]
    )
    assert result.exit_code == 1 and "0002.png: the file is empty" in result.output


def test_readers_of_other_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (tmp_path / "my_reader.py").write_text(
        "from emu_perception.data import register_dataset\n"
        "from emu_perception.data.folder import build_folder\n"
        "@register_dataset('mine', splits=('all',), evaluation_split='all')\n"
        "def build_mine(root, *, split: str):\n"
        "    'My own images.'\n"
        "    return build_folder(root, split=split)\n"
    )
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[emu_perception.datasets]\nmine = my_reader\nbroken = no_such_module\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "_ENTRIES", dict(catalogue._ENTRIES))
    load_plugins.cache_clear()
    with pytest.warns(UserWarning, match="plug-in 'broken' .no_such_module. cannot be loaded"):
        assert "mine" in dataset_names()
    assert len(build_dataset("mine", folder, "all")) == 4
    load_plugins.cache_clear()
