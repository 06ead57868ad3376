"""What is missing or broken is found, and named, by the check and in training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception.data import (
    build_dataset,
    check_dataset,
    make_loader,
)
from emu_perception.data.sample import DataError

Break = Callable[[Path], None]


def found(name: str, root: Path) -> dict[str, str]:
    """File, relative to the root -> what is wrong with it."""
    problems = [p for p in check_dataset(name, root) if p.fatal]
    assert len({p.where for p in problems}) == len(problems)
    return {str(Path(p.where).relative_to(root)): p.what for p in problems}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def png(array: np.ndarray) -> Break:
    return lambda path: path.write_bytes(cv2.imencode(".png", array)[1].tobytes()) and None


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("train/images/0001TP_00001.png", cut, "cut off"),
        ("train/images/0001TP_00001.png", lambda p: p.write_bytes(b""), "the file is empty"),
        ("train/images/0001TP_00001.png", lambda p: p.write_text("hello"), "not an image file"),
        ("train/labels/0006R0_00002.png", Path.unlink, "there is no such file"),
        (
            "val/labels/0016E5_07959.png",
            png(np.full((12, 16), 11, np.uint8)),
            "unknown label ids: 11 (192 pixels); known: 0–10, 255",
        ),
        (
            "val/labels/0016E5_07959.png",
            png(np.zeros((12, 17), np.uint8)),
            "labels is uint8 (12, 17), expected uint8 (12, 16)",
        ),
        (
            "train/labels/0016E5_00004.png",
            png(np.zeros((12, 16, 3), np.uint8)),
            "is uint8 with 3 channels, expected uint8 with 1",
        ),
        (
            "train/labels/0016E5_00009.png",
            png(np.zeros((12, 16), np.uint8)),
            "no image of this name",
        ),
    ],
)
def test_camvid(camvid: Path, file: str, change: Break, says: str) -> None:
    change(camvid / file)
    problems = found("camvid", camvid)
    assert list(problems) == [file]
    assert says in problems[file]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_cut_off_images_of_other_formats(camvid: Path, suffix: str) -> None:
    png_path = camvid / "val" / "images" / "0016E5_07959.png"
    path = png_path.with_suffix(suffix)
    cv2.imwrite(str(path), cv2.imread(str(png_path)))
    png_path.unlink()
    assert found("camvid", camvid) == {}
    cut(path)
    assert "is cut off" in found("camvid", camvid)[f"val/images/{path.name}"]


def test_every_broken_file_is_listed(camvid: Path) -> None:
    broken = [
        "train/images/0001TP_00000.png",
        "train/labels/0001TP_00004.png",
        "val/images/0016E5_07961.png",
    ]
    for file in broken:
        cut(camvid / file)
    assert sorted(found("camvid", camvid)) == broken


def test_check_reports_progress_and_a_root_that_is_not_there(camvid: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_dataset("camvid", camvid, lambda done, total: seen.append((done, total)))
    assert (2, 2) in seen
    assert found("cityscapes", tmp_path / "nowhere") == {
        "leftImg8bit/train": "holds no <city>/*_leftImg8bit.png",
        "leftImg8bit/val": "holds no <city>/*_leftImg8bit.png",
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_a_corrupt_file_names_it(camvid: Path, workers: int) -> None:
    cut(camvid / "train/labels/0006R0_00003.png")
    dataset = build_dataset("camvid", camvid, "train")
    loader = make_loader(dataset, 4, shuffle=False, workers=workers)
    batches = iter(loader)
    with pytest.raises(DataError, match=r"labels/0006R0_00003\.png: the PNG is cut off"):
        list(batches)
    for worker in getattr(batches, "_workers", ()):
        worker.terminate()  # the loader would wait five seconds for it


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "holds a JSON list, expected an object"),
        ('{"extrinsic": {"baseline": 0.2}}', "field 'intrinsic.fx' is not a number: None"),
        ('{"intrinsic": {"fx": 1}}', "field 'extrinsic.baseline' is not a number: None"),
    ],
)
def test_cityscapes_camera(cityscapes: Path, camera: str, says: str) -> None:
    file = "camera/val/lindau/lindau_000001_000019_camera.json"
    (cityscapes / file).write_text(camera)
    problems = [p for p in check_dataset("cityscapes", cityscapes) if p.fatal]
    assert {str(Path(p.where).relative_to(cityscapes)) for p in problems} == {file}
    assert any(says in p.what for p in problems)


def test_cityscapes_parts(cityscapes: Path) -> None:
    missing = "gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png"
    (cityscapes / missing).unlink()
    orphan = "disparity/val/lindau/lindau_000007_000019_disparity.png"
    (cityscapes / orphan).write_bytes(b"x")
    eight_bit = "disparity/train/aachen/aachen_000003_000019_disparity.png"
    png(np.zeros((12, 16), np.uint8))(cityscapes / eight_bit)
    assert found("cityscapes", cityscapes) == {
        missing: "there is no such file",
        eight_bit: "is uint8 with 1 channel, expected uint16 with 1",
        orphan: "there is no image of this name",
    }


def test_cityscapes_without_depth(cityscapes: Path) -> None:
    for folder in ("disparity", "camera"):
        (cityscapes / folder).rename(cityscapes / f"no_{folder}")
    dataset = build_dataset("cityscapes", cityscapes, "val")
    assert dataset.tasks == ("semantic",)
    assert dataset[0].intrinsics is None
    problems = check_dataset("cityscapes", cityscapes)
    assert {p.fatal for p in problems} == {False}
    assert any("disparity/val: not there: images are without depth" in str(p) for p in problems)


def test_sparse_depth_camera(sparse_depth: Path) -> None:
    cameras = json.loads((sparse_depth / "intrinsics.json").read_text())
    cameras["CAMERA_05_1"] = [0, 1, 2, 3]
    (sparse_depth / "intrinsics.json").write_text(json.dumps(cameras))
    problems = check_dataset("ddad", sparse_depth)
    assert [p.what for p in problems] == [
        "entry 'CAMERA_05_1' is not [fx, fy, cx, cy] with positive fx and fy: [0, 1, 2, 3]"
    ]
    assert problems[0].where.endswith("intrinsics.json")


def test_virtual_kitti_2_colors(virtual_kitti_2: Path) -> None:
    colors = "Scene01/fog/frames/classSegmentation/Camera_1/classgt_00003.png"
    path = virtual_kitti_2 / colors
    image = cv2.imread(str(path))
    image[4, 7] = (3, 2, 1)
    png(image)(path)
    assert found("virtual_kitti_2", virtual_kitti_2) == {
        colors: "1 pixels have a colour of no class, such as RGB (1, 2, 3) at column 7, row 4"
    }


def test_virtual_kitti_2_cameras(virtual_kitti_2: Path) -> None:
    clone, fog = (virtual_kitti_2 / "Scene01" / v / "intrinsic.txt" for v in ("clone", "fog"))
    clone.write_text("header\n0 0 725 725\n")
    fog.write_text("header\n0 0 725 725 7 5\n")
    dataset = build_dataset("virtual_kitti_2", virtual_kitti_2, "train", variations=["clone"])
    with pytest.raises(DataError, match=r"clone/intrinsic\.txt: line 2 is not 'frame camera fx"):
        dataset[0]
    dataset = build_dataset("virtual_kitti_2", virtual_kitti_2, "train", variations=["fog"])
    with pytest.raises(DataError, match=r"fog/intrinsic\.txt: has no line for frame 1, camera 0"):
        dataset[1]


@pytest.mark.parametrize(
    ("file", "array", "says"),
    [
        ("image", np.full((12, 16, 3), 3.0), "values run from 3.0 to 3.0, expected [0, 1]"),
        ("image", np.zeros((3, 12, 16)), "has shape (3, 12, 16), expected (H, W, 3)"),
        ("label", np.full((12, 16), 13), "unknown label ids: 13 (192 pixels)"),
        ("label", np.full((12, 16), -2), "label ids run down to -2"),
        ("depth", np.full((12, 16, 1), np.nan), "are not all finite"),
        ("depth", np.full((12, 16, 1), -1.0), "depth runs down to -1.0"),
        ("normal", np.zeros((12, 16, 3), object), "is not a NumPy array"),
    ],
)
def test_mtan(mtan_nyuv2: Path, file: str, array: np.ndarray, says: str) -> None:
    np.save(mtan_nyuv2 / "val" / file / "1.npy", array, allow_pickle=True)
    problems = found("mtan_nyuv2", mtan_nyuv2)
    assert list(problems) == [f"val/{file}/1.npy"]
    assert says in problems[f"val/{file}/1.npy"]


def test_nyuv2(nyuv2_folder: Path) -> None:
    file = "label13/0003.png"
    png(np.full((12, 16), 14, np.uint8))(nyuv2_folder / file)
    assert found("nyuv2", nyuv2_folder) == {file: "unknown label ids: 14 (192 pixels); known: 0–13"}
    (nyuv2_folder / "rgb" / "0003.png").rename(nyuv2_folder / "rgb" / "corridor.png")
    with pytest.raises(DataError, match=r"rgb/corridor\.png: is not named by its number"):
        build_dataset("nyuv2", nyuv2_folder, "train")


def test_nyuv2_mat_with_an_unknown_label(nyuv2_mat: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(nyuv2_mat / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["labels"][2, 5, 5] = 895
    dataset = build_dataset("nyuv2", nyuv2_mat, "train")
    with pytest.raises(DataError, match=r"labeled\.mat image 0003: unknown label ids: 895"):
        dataset[0]
    assert {p.what.partition(":")[0] for p in dataset.problems() if p.fatal} == {
        "unknown label ids"
    }


def test_nyuv2_mat_without_depth(nyuv2_mat: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(nyuv2_mat / "nyu_depth_v2_labeled.mat", "r+") as file:
        del file["depths"]
    with pytest.raises(DataError, match=r"labeled\.mat: has no 'depths'"):
        build_dataset("nyuv2", nyuv2_mat, "train")


def test_nyuv2_mat_of_another_format(nyuv2_mat: Path) -> None:
    (nyuv2_mat / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match=r"labeled\.mat: is not a readable MATLAB 7\.3 file"):
        build_dataset("nyuv2", nyuv2_mat, "train")
