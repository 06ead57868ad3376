"""How high over the road the camera is, by a model's own depth: it should not change in a drive.

It needs classes and a camera, no measured depth: each pixel of road, by its depth and by how far
its ray points below the horizon, implies a height.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from emu_perception.camera import Intrinsics

ROAD = "road"
MIN_PIXELS = 500
MIN_SLOPE = 0.05
"""(y - cy) / fy: rays nearer to the horizon multiply the error of where the horizon is."""


class CameraHeights:
    """Implied heights, image by image; eight bytes each."""

    def __init__(self) -> None:
        self._heights: dict[Hashable, list[float]] = {}

    def add(
        self, depth: np.ndarray, road: np.ndarray, intrinsics: Intrinsics, clip: Hashable = ""
    ) -> float | None:
        """One image.

        Args:
            depth: `(H, W)` predicted metres, NaN where there is none.
            road: `(H, W)` bool, true road.
            intrinsics: of this image.
            clip: the drive that it belongs to.

        Returns:
            The median height in metres; None where too little road is seen.
        """
        slope = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
        low = slope > MIN_SLOPE
        heights = (depth * slope[:, None])[low]
        heights = heights[road[low] & np.isfinite(heights)]
        if heights.size < MIN_PIXELS:
            return None
        median = float(np.median(heights))
        self._heights.setdefault(clip, []).append(median)
        return median

    def values(self) -> dict[str, Any] | None:
        """By clip `mean` (m), `variation` (deviation / mean) and `images`; None without any.

        A clip with one height has none that it could vary from, and is left out.
        """
        found = {}
        for clip, heights in self._heights.items():
            if len(heights) < 2:
                continue
            mean = float(np.mean(heights))
            found[str(clip)] = {
                "mean": mean,
                "variation": float(np.std(heights)) / mean,
                "images": len(heights),
            }
        return found or None
