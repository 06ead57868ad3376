"""The real data, where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emu_perception.data import (
    Augmented,
    Mixture,
    Resized,
    Source,
    build_dataset,
    check_dataset,
    make_loader,
)
from emu_perception.data.augmentation import Augmentation
from emu_perception.data.geometry import normals_from_depth
from emu_perception.data.nyuv2_tables import FORTY_TO_THIRTEEN


def test_camvid(shared_data: Path) -> None:
    root = shared_data / "camvid"
    sizes = {s: len(build_dataset("camvid", root, s)) for s in ("train", "calibration", "val")}
    assert sizes == {"train": 331, "calibration": 36, "val": 101}
    drives = {
        drive: len(build_dataset("camvid", root, "val", held_out=drive))
        for drive in ("0001TP", "0006R0", "0016E5")
    }
    assert drives == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert build_dataset("camvid", root, "val")[0].size == (360, 480)


def test_ddad(shared_data: Path) -> None:
    root = shared_data / "ddad"
    assert check_dataset("ddad", root) == []
    val = build_dataset("ddad", root, "val", held_out="CAMERA_01")
    assert [val.name(i) for i in range(3)] == ["CAMERA_01_0", "CAMERA_01_1", "CAMERA_01_2"]
    depth = val[0].depth
    assert 4000 < np.count_nonzero(depth) < 13000


def test_nyuv2(shared_data: Path) -> None:
    root = shared_data / "nyuv2"
    assert [p for p in check_dataset("nyuv2", root) if p.fatal] == []
    thirteen = build_dataset("nyuv2", root, "test", classes=13)
    forty = build_dataset("nyuv2", root, "test", classes=40)
    assert len(thirteen) == len(forty) == 8
    index = next(i for i in range(8) if forty.name(i) == "0433")
    both = forty[index].labels, thirteen[index].labels
    mapped = np.array([*FORTY_TO_THIRTEEN.values(), *[255] * 216], np.uint8)[both[0]]
    np.testing.assert_array_equal(mapped, both[1])
    sample = thirteen[0]
    normals = normals_from_depth(sample.depth, sample.intrinsics, window=7)
    floor = (sample.labels == thirteen.label_set.index("floor")) & (normals != 0).any(axis=-1)
    if floor.any():
        assert np.median(normals[floor][:, 1]) < -0.5  # floors face up


def test_a_mixture_of_classes_and_depth(shared_data: Path) -> None:
    camvid = build_dataset("camvid", shared_data / "camvid", "train")
    ddad = Resized(build_dataset("ddad", shared_data / "ddad", "train"), (304, 484))
    mixture = Mixture([Source(camvid, 2), Source(ddad, 1)], 12, seed=1)
    dataset = Augmented(mixture, Augmentation((96, 128)), seed=1)
    batches = list(make_loader(dataset, 6, shuffle=True))
    for batch in batches:
        assert 3 <= int(batch["has_labels"].sum()) <= 5
        assert (batch["has_labels"] ^ batch["has_depth"]).all()
        assert (batch["has_intrinsics"] == batch["has_depth"]).all()
    assert any(batch["depth_valid"].any() for batch in batches)
