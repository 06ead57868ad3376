"""Miniature data sets, each in the layout that the real one has on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Write = Callable[[Path, np.ndarray], None]


def write(path: Path, array: np.ndarray) -> None:
    """An array as an image file (RGB order) or, by its name, as a NumPy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def integers(seed: int, low: int, high: int, dtype: type) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (12, 16)).astype(dtype)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that ask for it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("EMU_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    frames = {
        "train": [f"{drive}_{n:05d}" for drive in ("0001TP", "0006R0", "0016E5") for n in range(5)],
        "val": ["0016E5_07959", "0016E5_07961"],
    }
    for split, names in frames.items():
        for i, name in enumerate(names):
            write(tmp_path / split / "images" / f"{name}.png", picture(i))
            labels = integers(i, 0, 11, np.uint8)
            labels[0, 0] = 255
            write(tmp_path / split / "labels" / f"{name}.png", labels)
    return tmp_path


@pytest.fixture
def sparse_depth(tmp_path: Path) -> Path:
    cameras = {}
    for camera, focal in (("CAMERA_01", 20.0), ("CAMERA_05", 10.0)):
        for i in range(3):
            name = f"{camera}_{i}"
            write(tmp_path / "images" / f"{name}.png", picture(i))
            depth = np.zeros((12, 16), np.uint16)
            depth[3, 4], depth[5, 6] = 256 * 7 + 128, 256 * 210
            write(tmp_path / "depth" / f"{name}.png", depth)
            cameras[name] = [focal, focal + 1, 7.0, 5.0]
    (tmp_path / "intrinsics.json").write_text(json.dumps(cameras))
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    for split, city, count in (("train", "aachen", 4), ("val", "lindau", 2), ("test", "bonn", 1)):
        for i in range(count):
            stem = f"{city}_{i:06d}_000019"
            folder = tmp_path / "leftImg8bit" / split / city
            write(folder / f"{stem}_leftImg8bit.png", picture(i))
            if split == "test":
                continue
            ids = np.full((12, 16), 7, np.uint8)  # road
            ids[0], ids[1], ids[2] = 33, 255, 4  # bicycle, licence plate (-1), static
            write(tmp_path / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids)
            disparity = np.full((12, 16), 1 + 256 * 20, np.uint16)  # 20 pixels
            disparity[0], disparity[1] = 0, 1
            disparity[2] = 2  # 1/256 of a pixel: beyond 80 m
            write(tmp_path / "disparity" / split / city / f"{stem}_disparity.png", disparity)
            camera = {
                "extrinsic": {"baseline": 0.2},
                "intrinsic": {"fx": 2000.0, "fy": 2001.0, "u0": 8.0, "v0": 6.0},
            }
            path = tmp_path / "camera" / split / city / f"{stem}_camera.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(camera))
    return tmp_path


@pytest.fixture
def nyuv2_folder(tmp_path: Path) -> Path:
    for number in (1, 2, 3, 4, 5, 9):  # 1, 2 and 9 are test images
        name = f"{number:04d}.png"
        write(tmp_path / "rgb" / name, picture(number))
        depth = np.full((12, 16), 2500, np.uint16)
        depth[0], depth[1] = 0, 10_000
        write(tmp_path / "depth_mm" / name, depth)
        thirteen = np.full((12, 16), 12, np.uint8)  # wall
        thirteen[0] = 0
        write(tmp_path / "label13" / name, thirteen)
        if number != 9:
            forty = np.full((12, 16), 38, np.uint8)  # other furniture
            forty[0] = 255
            write(tmp_path / "label40" / name, forty)
    return tmp_path


@pytest.fixture
def nyuv2_mat(tmp_path: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    count, scenes = 4, ["kitchen_0004", "kitchen_0004", "office_0001", "office_0001"]
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        pictures = np.stack([picture(i) for i in range(count)])
        file["images"] = pictures.transpose(0, 3, 2, 1)  # MATLAB's order
        labels = np.full((count, 12, 16), 21, np.uint16)  # wall
        labels[:, 0], labels[:, 1], labels[:, 2] = 0, 894, 157  # unlabelled, other prop, bed
        file["labels"] = labels.transpose(0, 2, 1)
        depth = np.full((count, 12, 16), 2.5, np.float32)
        depth[:, 0] = 10.0
        file["depths"] = depth.transpose(0, 2, 1)
        raw = depth.copy()
        raw[:, 3] = 0
        file["rawDepths"] = raw.transpose(0, 2, 1)
        references = np.empty((1, count), h5py.ref_dtype)
        for i, scene in enumerate(scenes):
            file[f"#refs#/{i}"] = np.array([list(map(ord, scene))], np.uint16).T
            references[0, i] = file[f"#refs#/{i}"].ref
        file["scenes"] = references
    return tmp_path


@pytest.fixture
def mtan_nyuv2(tmp_path: Path) -> Path:
    for split, count in (("train", 11), ("val", 2)):
        for i in range(count):
            write(tmp_path / split / "image" / f"{i}.npy", picture(i) / 255)
            labels = integers(i, 0, 13, np.int64)
            labels[0] = -1
            write(tmp_path / split / "label" / f"{i}.npy", labels)
            depth = np.full((12, 16, 1), 2.5)
            depth[0] = 0
            write(tmp_path / split / "depth" / f"{i}.npy", depth)
            normals = np.zeros((12, 16, 3))
            normals[2:, :, 2] = -0.99
            write(tmp_path / split / "normal" / f"{i}.npy", normals)
    return tmp_path


@pytest.fixture
def mtan_cityscapes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write(tmp_path / split / "image" / "0.npy", picture(0).astype(np.float32) / 255)
        for classes in (7, 19):
            labels = integers(classes, 0, classes, np.int32)
            write(tmp_path / split / f"label_{classes}" / "0.npy", labels.astype(np.float32))
        depth = np.full((12, 16, 1), 0.08, np.float32)
        depth[0] = 0
        write(tmp_path / split / "depth" / "0.npy", depth)
    return tmp_path


@pytest.fixture
def virtual_kitti_2(tmp_path: Path) -> Path:
    for variation in ("clone", "fog"):
        drive = tmp_path / "Scene01" / variation
        for camera in (0, 1):
            for frame in range(5):
                base, folder = drive / "frames", f"Camera_{camera}"
                write(base / "rgb" / folder / f"rgb_{frame:05d}.jpg", picture(frame))
                colors = np.zeros((12, 16, 3), np.uint8)
                colors[1:], colors[2:] = (90, 200, 255), (100, 60, 100)  # undefined, sky, road
                write(base / "classSegmentation" / folder / f"classgt_{frame:05d}.png", colors)
                depth = np.full((12, 16), 1234, np.uint16)
                depth[0] = 65535
                write(base / "depth" / folder / f"depth_{frame:05d}.png", depth)
        lines = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
        lines += [f"{f} {c} 725.5 725 7.5 5.5" for f in range(5) for c in (0, 1)]
        (drive / "intrinsic.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def synthia(tmp_path: Path) -> Path:
    for i in range(5):
        name = f"{i:07d}.png"
        write(tmp_path / "RGB" / name, picture(i, 19, 32))
        labels = np.zeros((19, 32, 3), np.uint16)
        labels[..., 0], labels[..., 1] = 3, 77  # road; the second channel is the instance
        labels[0, :, 0], labels[1, :, 0] = 1, 22  # sky, lane marking
        write(tmp_path / "GT" / "LABELS" / name, labels)
        depth = np.full((19, 32, 3), 512, np.uint16)
        depth[0] = 65535
        write(tmp_path / "Depth" / "Depth" / name, depth)
    return tmp_path
