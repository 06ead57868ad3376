"""Every layout is read back: values, splits, clips, cameras."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from emu_perception.data import (
    build_dataset,
    check_dataset,
    dataset_entry,
    dataset_names,
    make_loader,
)
from emu_perception.data import nyuv2_tables as tables
from emu_perception.data.sample import DataError


def names(dataset: object) -> list[str]:
    return [dataset.name(i) for i in range(len(dataset))]


def fatal(name: str, root: Path) -> list[str]:
    return [str(p) for p in check_dataset(name, root) if p.fatal]


def test_camvid(camvid: Path) -> None:
    train = build_dataset("camvid", camvid, "train", calibration_fraction=0.2)
    calibration = build_dataset("camvid", camvid, "calibration", calibration_fraction=0.2)
    val = build_dataset("camvid", camvid, "val")
    assert (len(train), len(calibration), len(val)) == (12, 3, 2)
    assert names(calibration) == ["0001TP_00004", "0006R0_00004", "0016E5_00004"]
    assert not set(names(train)) & set(names(calibration))
    sample = train[0]
    assert (sample.name, sample.clip, sample.tasks) == ("0001TP_00000", "0001TP", ("semantic",))
    assert sample.labels[0, 0] == 255
    assert sample.labels.max() == 255
    assert train.label_set.names[0] == "sky"
    assert fatal("camvid", camvid) == []


def test_camvid_without_one_drive(camvid: Path) -> None:
    options = {"held_out": "0016E5", "calibration_fraction": 0.2}
    splits = ("train", "calibration", "val")
    sets = {s: build_dataset("camvid", camvid, s, **options) for s in splits}
    drives = {s: {d.clip(i) for i in range(len(d))} for s, d in sets.items()}
    assert drives == {
        "train": {"0001TP", "0006R0"},
        "calibration": {"0001TP", "0006R0"},
        "val": {"0016E5"},
    }
    assert len(sets["val"]) == 5  # the consecutive frames of the val folder are not among them
    with pytest.raises(DataError, match="no clip '0016E' to hold out; it has 0001TP, 0006R0"):
        build_dataset("camvid", camvid, "train", held_out="0016E")


def test_sparse_depth(sparse_depth: Path) -> None:
    everything = build_dataset("ddad", sparse_depth, "all")
    train = build_dataset("ddad", sparse_depth, "train", held_out="CAMERA_05")
    val = build_dataset("ddad", sparse_depth, "val", held_out="CAMERA_05")
    assert (len(everything), len(train), len(val)) == (6, 3, 3)
    assert {val.clip(i) for i in range(3)} == {"CAMERA_05"}
    sample = val[0]
    assert sample.depth[3, 4] == 7.5
    assert sample.depth[5, 6] == 0  # 210 m is beyond 200
    assert np.count_nonzero(sample.depth) == 1
    assert (sample.intrinsics.fx, sample.intrinsics.fy) == (10, 11)
    assert sample.labels is None
    assert fatal("sparse_depth", sparse_depth) == []


def test_cityscapes(cityscapes: Path) -> None:
    train = build_dataset("cityscapes", cityscapes, "train")
    sample = train[1]
    assert (len(train), sample.name, sample.clip) == (4, "aachen_000001_000019", "aachen_000001")
    assert sample.labels[:4, 0].tolist() == [18, 255, 255, 0]
    # 0.2 m · 2000 px / 20 px = 20 m; p = 0 invalid, p = 1 infinitely far, p = 2 beyond 80 m.
    assert sample.depth[:4, 0].tolist() == [0, 0, 0, 20]
    assert (sample.intrinsics.fy, sample.intrinsics.cx) == (2001, 8)
    sequences = build_dataset("cityscapes", cityscapes, "train", sequences=True)
    missing = r"leftImg8bit_sequence.train.aachen.aachen_000001_000018_leftImg8bit.png"
    with pytest.raises(DataError, match=missing):
        _ = sequences[1]
    for image in sorted((cityscapes / "leftImg8bit" / "train" / "aachen").glob("*")):
        frame = int(image.name.split("_")[2])
        for step in (-1, 1):
            path = cityscapes / "leftImg8bit_sequence" / "train" / "aachen" / image.name
            path = path.with_name(path.name.replace(f"{frame:06d}_l", f"{frame + step:06d}_l"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.read_bytes())
    assert np.array_equal(sequences[1].neighbours[1], sequences[1].image)
    categories = build_dataset("cityscapes", cityscapes, "val", classes=7)[0]
    assert categories.labels[:4, 0].tolist() == [6, 255, 255, 0]
    assert build_dataset("cityscapes", cityscapes, "test")[0].tasks == ()
    split = {s: build_dataset("cityscapes", cityscapes, s, calibration_fraction=0.25) for s in
             ("train", "calibration")}  # fmt: skip
    assert [len(d) for d in split.values()] == [3, 1]
    assert fatal("cityscapes", cityscapes) == []


def test_nyuv2_folder(nyuv2_folder: Path) -> None:
    train = build_dataset("nyuv2", nyuv2_folder, "train", classes=13)
    assert names(train) == ["0003", "0004", "0005"]
    test = build_dataset("nyuv2", nyuv2_folder, "test", classes=40)
    assert names(test) == ["0001", "0002", "0009"]
    labelled, without = test[0], test[2]
    assert test.label_set.names[labelled.labels[5, 5]] == "other furniture"
    assert labelled.labels[0, 0] == 255
    assert labelled.depth[:3, 0].tolist() == [0, 0, 2.5]  # 10 m is out of range
    assert without.tasks == ("depth",)
    thirteen = build_dataset("nyuv2", nyuv2_folder, "test", classes=13)
    assert thirteen.label_set.names[thirteen[2].labels[5, 5]] == "wall"
    (nyuv2_folder / "label13" / "0001.png").unlink()
    again = build_dataset("nyuv2", nyuv2_folder, "test", classes=13)[0]
    assert thirteen.label_set.names[again.labels[5, 5]] == "furniture"  # from the forty
    notes = [p for p in check_dataset("nyuv2", nyuv2_folder) if not p.fatal]
    assert [(Path(p.where).name, p.what) for p in notes] == [("0009.png", "is without 40 classes")]


def test_nyuv2_mat(nyuv2_mat: Path) -> None:
    train = build_dataset("nyuv2", nyuv2_mat, "train")
    test = build_dataset("nyuv2", nyuv2_mat, "test", classes=13, raw_depth=True)
    assert names(train) == ["0003", "0004"]
    assert [test.clip(i) for i in range(len(test))] == ["kitchen_0004", "kitchen_0004"]
    sample = pickle.loads(pickle.dumps(train))[0]  # as it travels to a worker process
    assert sample.clip == "office_0001"
    expected = np.random.default_rng(2).integers(0, 256, (12, 16, 3), np.uint8)
    np.testing.assert_array_equal(sample.image, expected)
    assert sample.labels[:4, 0].tolist() == [255, 39, 3, 0]
    assert sample.depth[:4, 0].tolist() == [0, 2.5, 2.5, 2.5]
    assert test[0].labels[:4, 0].tolist() == [255, 6, 0, 11]
    assert test[0].depth[:4, 0].tolist() == [0, 2.5, 2.5, 0]
    assert fatal("nyuv2", nyuv2_mat) == []
    sizes = [len(batch["name"]) for batch in make_loader(train, 1, shuffle=False, workers=2)]
    assert sizes == [1, 1]


def test_nyuv2_tables() -> None:
    assert len(tables.TEST_NUMBERS) == 654
    assert max(tables.TEST_NUMBERS) == tables.IMAGE_COUNT
    assert len(tables.LABELS_TO_FORTY) == 894
    assert set(tables.LABELS_TO_FORTY.values()) == set(range(40))
    assert set(tables.FORTY_TO_THIRTEEN.values()) == set(range(13))


def test_mtan_nyuv2(mtan_nyuv2: Path) -> None:
    train = build_dataset("mtan_nyuv2", mtan_nyuv2, "train")
    assert names(train)[9:] == ["train_9", "train_10"]  # by number, not by letter
    assert train.tasks == ("semantic", "depth", "normals")
    sample = train[3]
    np.testing.assert_array_equal(
        sample.image, np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)
    )
    assert (sample.labels[0] == 255).all()
    assert sample.labels[1:].max() < 13
    assert sample.depth[:2, 0].tolist() == [0, 2.5]
    assert sample.normals[1:3, 0].tolist() == [[0, 0, 0], [0, 0, -1]]
    assert fatal("mtan_nyuv2", mtan_nyuv2) == []


def test_mtan_cityscapes(mtan_cityscapes: Path) -> None:
    sample = build_dataset("mtan_cityscapes", mtan_cityscapes, "val")[0]
    assert sample.labels.max() == 6
    assert sample.depth[0, 0] == 0
    assert 1 / sample.depth[1, 0] == pytest.approx(0.08)
    nineteen = build_dataset("mtan_cityscapes", mtan_cityscapes, "val", classes=19)
    assert len(nineteen.label_set) == 19
    assert fatal("mtan_cityscapes", mtan_cityscapes) == []


def test_virtual_kitti_2(virtual_kitti_2: Path) -> None:
    train = build_dataset("virtual_kitti_2", virtual_kitti_2, "train")
    val = build_dataset("virtual_kitti_2", virtual_kitti_2, "val")
    assert (len(train), len(val)) == (16, 4)
    assert {n[-5:] for n in names(val)} == {"00004"}  # the last frame of each camera and variation
    sample = build_dataset("virtual_kitti_2", virtual_kitti_2, "train", variations=["fog"])[0]
    assert (sample.name, sample.clip) == ("Scene01_fog_0_00000", "Scene01")
    assert sample.labels[:3, 0].tolist() == [255, 1, 5]
    assert sample.depth[:2, 0].tolist() == pytest.approx([0, 12.34])
    assert (sample.intrinsics.fx, sample.intrinsics.cx) == (725.5, 7.5)
    assert not train.sequences and sample.neighbours is None
    drive = build_dataset("virtual_kitti_2", virtual_kitti_2, "train", sequences=True)
    assert drive.sequences and drive[0].neighbours is None  # nothing is before the first
    before, after = drive[1].neighbours
    assert np.array_equal(before, drive[0].image) and np.array_equal(after, drive[2].image)
    assert fatal("virtual_kitti_2", virtual_kitti_2) == []


def test_synthia(synthia: Path) -> None:
    train = build_dataset("synthia", synthia, "train")
    assert len(train) == 4
    sample = train[0]
    assert sample.labels[:3, 0].tolist() == [10, 255, 0]
    assert sample.depth[:2, 0].tolist() == pytest.approx([0, 5.12])
    assert sample.intrinsics.fx == pytest.approx(532.740352 * 32 / 1280)
    assert fatal("synthia", synthia) == []


def test_names_and_options() -> None:
    assert {"camvid", "cityscapes", "ddad", "nyuv2", "scenes", "synthia"} <= set(dataset_names())
    assert all(dataset_entry(name).summary.endswith(".") for name in dataset_names())
    with pytest.raises(ValueError, match=r"unknown data set 'camvd' \(did you mean 'camvid'\?\)"):
        build_dataset("camvd", "anywhere", "train")
    with pytest.raises(ValueError, match=r"no option 'heldout' \(did you mean 'held_out'\?\)"):
        build_dataset("camvid", "anywhere", "train", heldout="0001TP")
    with pytest.raises(ValueError, match="'camvid' needs a root"):
        build_dataset("camvid", None, "train")
    with pytest.raises(DataError, match=r"nowhere/train/images: there is no such folder"):
        build_dataset("camvid", "nowhere", "train")
    with pytest.raises(ValueError, match="40 or 13 classes, not 20"):
        build_dataset("nyuv2", "nowhere", "train", classes=20)


def test_an_unknown_split_names_the_known_ones(camvid: Path) -> None:
    with pytest.raises(DataError, match="no split 'tain'; it has train, calibration, val"):
        build_dataset("camvid", camvid, "tain")
    with pytest.raises(DataError, match="split 'calibration' is empty with these options"):
        build_dataset("camvid", camvid, "calibration", calibration_fraction=0.0)
