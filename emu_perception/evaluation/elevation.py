"""Image-independent depth baseline: median depth per elevation angle.

On a road that is flat, how far away a pixel is depends on how far below the horizon its ray points.
A table of the median depth by that angle, fitted on other cameras, is what a network has to beat.
"""

from __future__ import annotations

import numpy as np

from emu_perception.camera import Intrinsics

STEP = 0.02
"""Width of a bin of (y - cy) / fy, the tangent of the angle below the optical axis."""
LIMIT = 1.5
"""Rays that are steeper share the outermost bins."""


class ElevationTable:
    """The median depth by elevation angle.

    `add` true depths, then read `depth`. It keeps all valid depths that it was given.
    """

    def __init__(self, depth_range: tuple[float, float]) -> None:
        """`depth_range`: metres; true depths outside are unknown."""
        self.depth_range = depth_range
        self._bins = 2 * round(LIMIT / STEP) + 1
        self._values: list[list[np.ndarray]] = [[] for _ in range(self._bins)]

    def add(self, depth: np.ndarray, intrinsics: Intrinsics) -> None:
        """One image: `(H, W)` metres, 0 or NaN where unknown."""
        low, high = self.depth_range
        rows = self._rows(intrinsics)
        for row, values in zip(rows, depth, strict=True):
            known = values[(values > low) & (values < high)]
            if known.size:
                self._values[row].append(known.astype(np.float32))

    def depth(self, intrinsics: Intrinsics) -> np.ndarray:
        """`(H, W)` float32 metres for a camera; between and beyond the angles seen, interpolated.

        Raises:
            ValueError: nothing was added.
        """
        known = [i for i, values in enumerate(self._values) if values]
        if not known:
            raise ValueError("the table was given no depth")
        medians = [float(np.median(np.concatenate(self._values[i]))) for i in known]
        of_rows = np.interp(self._rows(intrinsics), known, medians).astype(np.float32)
        return np.repeat(of_rows[:, None], intrinsics.width, axis=1)

    def _rows(self, intrinsics: Intrinsics) -> np.ndarray:
        """`(H,)` the bin of each row of an image."""
        slope = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
        bins = np.round(slope / STEP).astype(int) + self._bins // 2
        return np.clip(bins, 0, self._bins - 1)
