"""Plane-sweep stereo on a synthetic drive whose depth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception.data import build_dataset
from emu_perception.data.posed_video import read_poses, write_depth
from emu_perception.data.sample import DataError

HEIGHT, WIDTH, FOCAL, WALL = 48, 96, 60.0, 14.0
STEP = 0.5  # metres per frame, sideways


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that moves right past a textured wall, its lower half 7 m away."""
    root = tmp_path_factory.mktemp("video")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, 400), np.uint8), (0, 0), 1.0)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    rows = []
    for frame in range(13):
        image = np.zeros((HEIGHT, WIDTH), np.float32)
        for half, depth in ((slice(0, 24), WALL), (slice(24, 48), WALL / 2)):
            shift = STEP * frame * FOCAL / depth
            x = np.tile(np.arange(WIDTH, dtype=np.float32) + np.float32(shift), (24, 1))
            y = np.tile(np.arange(half.start, half.stop, dtype=np.float32)[:, None], (1, WIDTH))
            image[half] = cv2.remap(texture, x, y, cv2.INTER_LINEAR)
        assert cv2.imwrite(str(root / "images" / f"{frame:04d}.png"), image.astype(np.uint8))
        rows.append([1, 0, 0, STEP * frame, 0, 1, 0, 0, 0, 0, 1, 0])
    np.savetxt(root / "poses.txt", rows)
    camera = [FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2]
    (root / "intrinsics.json").write_text(json.dumps({"all": camera}))
    return root


def test_depth_is_metric_and_mostly_there(video: Path, tmp_path: Path) -> None:
    assert write_depth(video, tmp_path / "out", every=6) == 3
    sample = build_dataset("folder", tmp_path / "out", "all", pattern="0006")[0]
    assert sample.depth is not None and sample.intrinsics is not None
    for rows, truth in ((slice(4, 18), WALL), (slice(30, 44), WALL / 2)):
        depth = sample.depth[rows, 10:-10]
        assert (depth > 0).mean() > 0.8
        assert np.median(depth[depth > 0]) == pytest.approx(truth, rel=0.03)
        assert (np.abs(depth[depth > 0] / truth - 1) < 0.1).mean() > 0.95


def test_finished_frames_are_kept(video: Path, tmp_path: Path) -> None:
    write_depth(video, tmp_path, every=6)
    mark = tmp_path / "depth" / "0006.png"
    mark.write_bytes(b"kept")
    write_depth(video, tmp_path, every=6)
    assert mark.read_bytes() == b"kept"


def test_poses_must_match_the_images(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(DataError, match=r"holds \(1, 12\) numbers, expected \(2, 12\)"):
        read_poses(tmp_path / "poses.txt", 2)
