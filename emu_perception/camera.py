"""The pinhole camera: focal lengths and principal point of one image size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics of an undistorted image, in pixels.

    The centre of the top-left pixel is (0, 0), as in ROS and OpenCV. Axes are those of an optical
    frame (REP-103): x right, y down, z forward.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0):
            raise ValueError(
                f"focal lengths must be positive, got fx={self.fx}, fy={self.fy}; "
                "an uncalibrated camera has no Intrinsics: pass None"
            )
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"the image size must be positive, got {self.width} x {self.height} "
                "(width x height)"
            )

    @classmethod
    def from_focal_ratio(cls, width: int, height: int, ratio: float) -> Intrinsics:
        """Square pixels and a centred principal point; `ratio` is focal length / image width."""
        focal = ratio * width
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    @classmethod
    def from_field_of_view(cls, width: int, height: int, horizontal_degrees: float) -> Intrinsics:
        """Square pixels and a centred principal point; the full horizontal angle in degrees."""
        focal = 0.5 * width / float(np.tan(np.radians(horizontal_degrees) / 2))
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same view sampled at another size: pixel edges, not centres, stay in place."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
            width,
            height,
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Intrinsics:
        """The part of the image that starts at column `left` and row `top`."""
        return Intrinsics(self.fx, self.fy, self.cx - left, self.cy - top, width, height)

    def flipped(self) -> Intrinsics:
        """The image mirrored left to right."""
        return Intrinsics(
            self.fx, self.fy, self.width - 1 - self.cx, self.cy, self.width, self.height
        )

    def array(self) -> np.ndarray:
        """`(1, 4)` float32: fx, fy, cx, cy."""
        return np.array([[self.fx, self.fy, self.cx, self.cy]], np.float32)

    def rays(self) -> np.ndarray:
        """`(H, W, 2)` float32: x/z and y/z of each pixel's ray."""
        x = (np.arange(self.width) - self.cx) / self.fx
        y = (np.arange(self.height) - self.cy) / self.fy
        return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)
