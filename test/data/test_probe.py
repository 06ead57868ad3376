"""What training would pass over in silence is refused when it starts, by name."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception.training.data_config import DataConfig
from emu_perception.training.data_module import training_set


def data(*train: dict, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"train": list(train), "crop": [8, 8], **changes})


def sparse(root: Path, **changes: object) -> dict:
    return {"name": "sparse_depth", "root": str(root), "split": "all", **changes}


def test_normals_that_sparse_depth_cannot_teach(sparse_depth: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"contains normals, .*cannot teach: sparse_depth all: depth is known at 0\.5% of the",
    ):
        training_set(data(sparse(sparse_depth)), ("depth", "normals"), 0)
    # One image that teaches them is enough, and so is another data set.
    shutil.copytree(sparse_depth, dense := sparse_depth / "dense")
    cv2.imwrite(str(dense / "depth" / "CAMERA_05_2.png"), np.full((12, 16), 1000, np.uint16))
    assert len(training_set(data(sparse(dense)), ("depth", "normals"), 0)) == 6
    both = data(sparse(sparse_depth), sparse(dense))
    assert len(training_set(both, ("depth", "normals"), 0)) == 12


def test_depth_for_a_canonical_camera_needs_cameras(tmp_path: Path) -> None:
    for folder, array in (
        ("rgb", np.zeros((12, 16, 3), np.uint8)),
        ("depth_mm", np.full((12, 16), 2000, np.uint16)),  # cropped: its camera is unknown
    ):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "0001.png"), array)
    cropped = data({"name": "nyuv2", "root": str(tmp_path), "split": "all"})
    assert len(training_set(cropped, ("depth",), 0)) == 1
    with pytest.raises(
        ValueError, match=r"model.tasks contains depth, .*nyuv2 all: its images have no camera"
    ):
        training_set(cropped, ("depth",), 0, canonical=True)
    with pytest.raises(
        ValueError, match=r"model.tasks contains normals, .*nyuv2 all: .* derive normals from"
    ):
        training_set(cropped, ("depth", "normals"), 0)


def test_labels_without_a_pixel(camvid: Path) -> None:
    for file in (camvid / "train" / "labels").glob("*.png"):
        cv2.imwrite(str(file), np.full((12, 16), 255, np.uint8))
    labels = {"name": "camvid", "root": str(camvid), "split": "train"}
    with pytest.raises(
        ValueError, match=r"model.tasks contains semantic, .*camvid train: no pixel"
    ):
        training_set(data(labels), ("semantic",), 0)


def test_padding_that_would_tell_the_domains_apart(sparse_depth: Path) -> None:
    source = sparse(sparse_depth)
    target = source | {"target": True, "size": [11, 20]}
    augmentation = {"scale": [0.75, 1.0]}
    with pytest.raises(
        ValueError,
        match=r"sparse_depth all: an image of 20 x 11, scaled by 0\.75, .*crop of 12 x 9",
    ):
        training_set(data(source, target, crop=[9, 12], augmentation=augmentation), ("depth",), 0)
    larger = target | {"size": [12, 20]}
    training_set(data(source, larger, crop=[9, 12], augmentation=augmentation), ("depth",), 0)
    # One domain may be padded.
    training_set(data(source, crop=[80, 90], augmentation=augmentation), ("depth",), 0)
