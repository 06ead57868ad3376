"""The camera's height over the road that a depth map implies."""

from __future__ import annotations

import numpy as np
import pytest

from emu_perception.camera import Intrinsics
from emu_perception.evaluation.camera_height import CameraHeights

CAMERA = Intrinsics(200.0, 200.0, 100.0, 60.0, 200, 150)


def road_depth(height: float) -> tuple[np.ndarray, np.ndarray]:
    slope = (np.arange(CAMERA.height) - CAMERA.cy) / CAMERA.fy
    depth = np.where(slope > 0, height / np.maximum(slope, 1e-3), np.nan)
    depth = np.repeat(depth[:, None], CAMERA.width, axis=1)
    return depth, np.isfinite(depth)


def test_heights_of_a_drive_by_hand() -> None:
    heights = CameraHeights()
    for height in (1.2, 1.6):
        depth, road = road_depth(height)
        road[:, ::3] = False
        depth[100:, 4] = np.nan
        depth[:, ::3] = 7.0  # what is not road says nothing
        assert heights.add(depth, road, CAMERA, "drive") == pytest.approx(height)
    heights.add(*road_depth(2.0), CAMERA, "other")
    found = heights.values()
    assert found is not None
    assert found["drive"]["mean"] == pytest.approx(1.4)
    assert found["drive"]["variation"] == pytest.approx(0.2 / 1.4)
    assert found["drive"]["images"] == 2
    assert "other" not in found  # one image says nothing of how a height varies


def test_images_without_road_are_left_out() -> None:
    heights = CameraHeights()
    depth, road = road_depth(1.4)
    assert heights.add(depth, np.zeros_like(road), CAMERA) is None
    assert heights.add(np.full_like(depth, np.nan), road, CAMERA) is None
    assert heights.values() is None
