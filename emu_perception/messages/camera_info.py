"""From a CameraInfo to the camera of the image that belongs to it, at any published size.

Works on every object with the fields of sensor_msgs/CameraInfo: rclpy's messages and those that
rosbags reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.messages.errors import BadInput, InputError

RECTIFICATIONS = ("auto", "rectified", "raw")
COEFFICIENTS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
"""Distortion models of sensor_msgs and how many coefficients each may have."""
SMALLEST, LARGEST = 1e-3, 1e9
"""Pixels: limits of a focal length, and of a principal point's distance; rays stay finite."""
CONVERGED = 0.1
"""Pixels by which an undistorted ray may miss its pixel before it counts as outside the lens."""
GRID = 4
"""Pixels between the rays that are undistorted iteratively."""
IMPROVEMENTS = 4
"""Iterations for interpolated rays that miss their pixel by more than half of `CONVERGED`."""
ANGLES = 8192
"""Samples of an equidistant lens's angle from the optical axis to the edge."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """The camera of one image, region of interest and binning applied."""

    intrinsics: Intrinsics
    """Intrinsics of the image: P of a rectified image, K of a raw one."""
    distortion_model: str
    distortion: np.ndarray
    """Coefficients as OpenCV takes them; empty for a rectified or distortion-free image."""

    def rays(self, height: int, width: int) -> np.ndarray:
        """`(height, width, 2)` float32: x/z and y/z of the pixels at that size, NaN if outside.

        The result for the last size is cached, because undistorting takes long.
        """
        if (height, width) not in self._rays:
            self._rays.clear()
            self._rays[height, width] = self._compute_rays(self.intrinsics.resized(width, height))
        return self._rays[height, width]

    @cached_property
    def _rays(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def _compute_rays(self, camera: Intrinsics) -> np.ndarray:
        if not self.distortion.size:
            return camera.rays()
        if self.distortion_model == "equidistant":
            return _equidistant_rays(camera, self.distortion)
        return _polynomial_rays(camera, self.distortion)


def _equidistant_rays(camera: Intrinsics, distortion: np.ndarray) -> np.ndarray:
    """Rays of a fisheye lens, `(H, W, 2)` float32, NaN at 90 degrees and beyond.

    The lens maps the angle t from the optical axis to the radius t (1 + k1 t^2 + … + k4 t^8)
    (Kannala and Brandt 2006). The inverse is interpolated in a table, up to where the radius stops
    growing.
    """
    angle = np.linspace(0, np.pi / 2, ANGLES, endpoint=False)
    radius = angle * np.polyval([*distortion[::-1], 1.0], angle**2)
    falls = np.flatnonzero(np.diff(radius) <= 0)
    end = int(falls[0]) + 1 if falls.size else ANGLES
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height)[:, None] - camera.cy) / camera.fy
    distorted = np.hypot(x, y)
    found = np.interp(distorted, radius[:end], angle[:end], right=np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(distorted > 0, np.tan(found) / distorted, 1.0)
    return np.stack([x * scale, y * scale], axis=-1).astype(np.float32)


def _polynomial_rays(camera: Intrinsics, distortion: np.ndarray) -> np.ndarray:
    """Rays of a plumb_bob or rational_polynomial lens, `(H, W, 2)` float32, NaN if outside."""
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    # Undistorting every pixel iteratively takes seconds at 1080p. Rays change slowly over the
    # image: those between the grid's are interpolated, then improved where they miss their pixel.
    u, v = np.meshgrid(
        np.arange(0, camera.width + GRID - 1, GRID),
        np.arange(0, camera.height + GRID - 1, GRID),
    )
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    rays = _undistort(pixels, matrix, distortion)
    found = np.isfinite(rays[:, 0]).all(axis=1)
    found &= np.abs(_project(rays, matrix, distortion) - pixels).max(axis=(1, 2)) < CONVERGED
    rays[~found] = np.nan
    x, y = np.meshgrid(
        np.arange(camera.width, dtype=np.float32), np.arange(camera.height, dtype=np.float32)
    )
    grid = rays.reshape(*u.shape, 2).astype(np.float32)
    fine = cv2.remap(grid, x / GRID, y / GRID, cv2.INTER_LINEAR)
    wanted = np.stack([x, y], axis=-1)
    left = np.flatnonzero(_inexact_cells(fine, wanted, matrix, distortion))
    fine, wanted = fine.reshape(-1, 1, 2), wanted.reshape(-1, 1, 2)
    for _ in range(IMPROVEMENTS):
        missed = wanted[left] - _project(fine[left], matrix, distortion)
        far = np.abs(missed).max(axis=(1, 2)) > CONVERGED / 2
        left, missed = left[far], missed[far]
        fine[left] += missed / (camera.fx, camera.fy)
    missed = wanted[left] - _project(fine[left], matrix, distortion)
    fine[left[~(np.abs(missed).max(axis=(1, 2)) < CONVERGED)]] = np.nan
    return fine.reshape(camera.height, camera.width, 2)


def _inexact_cells(
    rays: np.ndarray, pixels: np.ndarray, matrix: np.ndarray, distortion: np.ndarray
) -> np.ndarray:
    """Pixels `(H, W)` in cells of the grid whose middle misses: interpolation errs most there."""
    height, width = rays.shape[:2]
    half = min(GRID // 2, height - 1, width - 1)
    middles = rays[half::GRID, half::GRID]
    seen = _project(middles.reshape(-1, 1, 2), matrix, distortion).reshape(middles.shape)
    missed = np.abs(seen - pixels[half::GRID, half::GRID]).max(axis=-1)
    cells = ~(missed < CONVERGED / 4)
    cells = cells.repeat(GRID, axis=0).repeat(GRID, axis=1)
    rest = max(0, height - cells.shape[0]), max(0, width - cells.shape[1])
    cells = np.pad(cells, ((0, rest[0]), (0, rest[1])), mode="edge")[:height, :width]
    return cells & np.isfinite(rays[..., 0])


def _project(rays: np.ndarray, matrix: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Pixels `(N, 1, 2)` at which rays `(N, 1, 2)` are seen."""
    if not len(rays):
        return np.zeros((0, 1, 2))
    points = np.concatenate([rays[:, 0], np.ones((len(rays), 1))], axis=1).astype(np.float64)
    seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, distortion)
    return np.asarray(seen)


def _undistort(pixels: np.ndarray, matrix: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    # The five iterations that OpenCV does by default leave several pixels of error in wide lenses.
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-3)
    if hasattr(cv2, "undistortPointsIter"):  # OpenCV 4
        return cv2.undistortPointsIter(pixels, matrix, distortion, None, None, criteria)
    return cv2.undistortPoints(pixels, matrix, distortion, criteria=criteria)


def camera_model(
    info: Any, image_size: tuple[int, int], image_frame: str, rectified: bool
) -> CameraModel:
    """The camera of an image.

    Args:
        info: a CameraInfo.
        image_size: height and width of the image.
        image_frame: `frame_id` of the image.
        rectified: whether the image is rectified, as `is_rectified` tells.

    Raises:
        InputError: the CameraInfo is uncalibrated, unreadable or belongs to another image.
    """
    _check_belongs(info, image_size, image_frame)
    height, width = image_size
    to_image = _image_transform(info, width, height)
    with np.errstate(all="ignore"):  # what is not finite is refused below
        k = to_image @ np.asarray(info.k, np.float64).reshape(3, 3)
        p = to_image @ np.asarray(info.p, np.float64).reshape(3, 4)[:, :3]
    distortion = np.asarray(info.d, np.float64)
    # Drivers of cameras without distortion often leave P empty.
    matrix = p if rectified and p[0, 0] != 0 else k
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
        raise _error("has NaN or infinite values in K, D or P")
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise _error(
            f"is uncalibrated (K[0] = {info.k[0]:g}): depth assumes the model's default focal "
            "length, and there are no points; calibrate the camera, or publish no camera_info"
        )
    if min(matrix[0, 0], matrix[1, 1]) < SMALLEST or np.abs(matrix).max() > LARGEST:
        raise _error(
            f"has a focal length or a principal point outside {SMALLEST:g} to {LARGEST:g} pixels"
        )
    if rectified or not np.any(distortion):
        distortion = np.zeros(0)
    elif distortion.size not in COEFFICIENTS.get(info.distortion_model, ()):
        known = "; ".join(f"{n}: {' or '.join(map(str, c))}" for n, c in COEFFICIENTS.items())
        raise _error(
            f"has the distortion model '{info.distortion_model}' with {distortion.size} "
            f"coefficients, expected one of {known}"
        )
    fx, fy, cx, cy = (float(matrix[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    intrinsics = Intrinsics(fx, fy, cx, cy, width, height)
    return CameraModel(intrinsics, info.distortion_model, distortion)


def assumed_camera(focal_length: float, image_size: tuple[int, int]) -> CameraModel:
    """The camera of an undistorted image without a CameraInfo, its principal point in the middle.

    Args:
        focal_length: in pixels of the image.
        image_size: height and width of the image.
    """
    height, width = image_size
    intrinsics = Intrinsics.from_focal_ratio(width, height, focal_length / width)
    return CameraModel(intrinsics, "", np.zeros(0))


class CameraFinder:
    """The cameras of successive images; one that stays the same is worked out once."""

    def __init__(self) -> None:
        self._camera: CameraModel | None = None
        self._key: Any = None

    def find(
        self,
        info: Any,
        image_size: tuple[int, int],
        image_frame: str,
        image_topic: str,
        rectification: str = "auto",
    ) -> CameraModel:
        """The camera of an image, of a CameraInfo as in `camera_model`.

        Raises:
            InputError: as `camera_model`.
        """
        roi = info.roi
        key = (
            *(rectification, image_topic, image_size, image_frame, info.header.frame_id),
            *(info.height, info.width, info.binning_x, info.binning_y),
            *(roi.x_offset, roi.y_offset, roi.height, roi.width, info.distortion_model),
            *(bytes(memoryview(values).cast("B")) for values in (info.k, info.p)),
            tuple(info.d),
        )
        if self._camera is None or key != self._key:
            self._camera = self._key = None
            rectified = is_rectified(info, image_topic, rectification)
            self._camera = camera_model(info, image_size, image_frame, rectified)
            self._key = key
        return self._camera


def is_rectified(info: Any, image_topic: str, rectification: str) -> bool:
    """Whether an image is rectified.

    `auto`: D is all zero, or a word of the topic's last name is "rect" or "rectified", such as
    image_rect_color. image_direct and image_corrected are not.
    """
    if rectification != "auto":
        return rectification == "rectified"
    words = re.split(r"[^a-z]+", image_topic.rsplit("/", 1)[-1].lower())
    return not np.any(np.asarray(info.d)) or not {"rect", "rectified"}.isdisjoint(words)


def scale_camera_info(info: Any, image_size: tuple[int, int], size: tuple[int, int]) -> None:
    """Change a CameraInfo in place to describe its image resized from `image_size` to `size`.

    Both are (height, width). Region of interest and binning are folded into K and P: the result is
    self-contained. Pixel edges stay in place, so a principal point c becomes (c + 0.5) s - 0.5.
    """
    to_image = _image_transform(info, image_size[1], image_size[0])
    sx, sy = size[1] / image_size[1], size[0] / image_size[0]
    resize = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
    transform = resize @ to_image
    info.k = (transform @ np.asarray(info.k, np.float64).reshape(3, 3)).reshape(-1)
    info.p = (transform @ np.asarray(info.p, np.float64).reshape(3, 4)).reshape(-1)
    info.height, info.width = size
    info.binning_x = info.binning_y = 0
    roi = info.roi
    roi.x_offset = roi.y_offset = roi.height = roi.width = 0


def _image_transform(info: Any, width: int, height: int) -> np.ndarray:
    """3x3 matrix from pixels of the full sensor to pixels of the image."""
    roi = info.roi
    sx = width / (roi.width or info.width)
    sy = height / (roi.height or info.height)
    return np.array(
        [
            [sx, 0, (0.5 - roi.x_offset) * sx - 0.5],
            [0, sy, (0.5 - roi.y_offset) * sy - 0.5],
            [0, 0, 1],
        ]
    )


def _check_belongs(info: Any, image_size: tuple[int, int], image_frame: str) -> None:
    region = info.roi.width or info.width, info.roi.height or info.height
    expected = region[0] // max(info.binning_x, 1), region[1] // max(info.binning_y, 1)
    if expected != (image_size[1], image_size[0]):
        raise _error(
            f"is for {expected[0]} x {expected[1]} pixels, binning and region of interest "
            f"included, the image has {image_size[1]} x {image_size[0]}"
        )
    frame = info.header.frame_id
    if frame and image_frame and frame != image_frame:
        raise _error(f"is in the frame '{frame}', the image in '{image_frame}'")


def _error(what: str) -> InputError:
    return InputError(BadInput.CAMERA_INFO, f"camera_info {what}")
