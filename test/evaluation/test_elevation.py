"""The image-free table of depth by elevation."""

from __future__ import annotations

import numpy as np
import pytest

from emu_perception.camera import Intrinsics
from emu_perception.evaluation.elevation import ElevationTable


def street(intrinsics: Intrinsics, height: float) -> np.ndarray:
    slope = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    rows = np.where(slope > 0.03, height / np.maximum(slope, 1e-6), 0.0)
    return np.repeat(rows[:, None], intrinsics.width, axis=1)


def test_a_flat_street_is_known_to_another_camera() -> None:
    table = ElevationTable((0.5, 80.0))
    first = Intrinsics(300.0, 310.0, 60.0, 40.0, 120, 90)
    table.add(street(first, 1.5), first)
    other = Intrinsics(500.0, 520.0, 90.0, 55.0, 200, 160)
    truth, found = street(other, 1.5), table.depth(other)
    assert found.shape == (160, 200) and found.dtype == np.float32
    near = (truth > 0) & (truth < 15)
    assert np.abs(found - truth)[near].max() < 0.15 * truth[near].max()
    assert np.median(np.abs(found - truth)[near] / truth[near]) < 0.08


def test_medians_by_hand_and_what_is_unknown() -> None:
    camera = Intrinsics(10.0, 10.0, 0.0, 1.0, 3, 3)  # slopes of -0.1, 0, 0.1
    table = ElevationTable((1.0, 50.0))
    with pytest.raises(ValueError, match="no depth"):
        table.depth(camera)
    rows = [[40.0, 60.0, np.nan], [0.0, 0.5, np.nan], [2.0, 3.0, 9.0]]
    table.add(np.array(rows), camera)
    # 60 m is too far to be known; the middle row lies halfway between its neighbours.
    assert table.depth(camera)[:, 0].tolist() == pytest.approx([40.0, 21.5, 3.0])
    steep = Intrinsics(1.0, 1.0, 0.0, 1.0, 1, 9)
    assert table.depth(steep)[:, 0].tolist() == pytest.approx([40.0, 21.5] + [3.0] * 7)
