"""Ground truth that is derived from another: normals from depth, edges from classes."""

from __future__ import annotations

import cv2
import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.prediction import UNLABELLED


def normals_from_depth(
    depth: np.ndarray,
    intrinsics: Intrinsics,
    *,
    window: int = 5,
    max_residual: float = 0.03,
) -> np.ndarray:
    """Surface normals of a depth map, by fitting a plane around each pixel.

    A plane n·X = d seen by a pinhole camera has an inverse depth that is linear in the pixel, so a
    least-squares plane fit needs only a few weighted sums, is exact for planes, and leaves out
    pixels without depth. It is the fit of metric depth: the planes are those of the scene.

    Args:
        depth: `(H, W)`, metres along the optical axis; values that are not > 0 count as none.
        intrinsics: of this image size.
        window: side of the square neighbourhood in pixels, odd, ≥ 3.
        max_residual: where the neighbourhood's depth deviates from its plane by more than this
            share (root mean square), as across an object's outline, there is no normal.

    Returns:
        `(H, W, 3)` float32, unit vectors towards the camera (z < 0 ahead); (0, 0, 0) = none.
    """
    if depth.shape != (intrinsics.height, intrinsics.width):
        raise ValueError(
            f"depth is {depth.shape}, the intrinsics are those of a "
            f"{intrinsics.height} x {intrinsics.width} (height x width) image"
        )
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window must be odd and at least 3, got {window}")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(depth) & (depth > 0)
    inverse = np.where(known, 1 / np.where(known, depth, 1), 0).astype(np.float64)
    mask = known.astype(np.float64)

    one = np.ones(window)
    offset = np.arange(window, dtype=np.float64) - window // 2

    def total(values: np.ndarray, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(values, cv2.CV_64F, along_x, along_y, borderType=cv2.BORDER_CONSTANT)

    s, su, sv = total(mask, one, one), total(mask, offset, one), total(mask, one, offset)
    suu, svv = total(mask, offset**2, one), total(mask, one, offset**2)
    suv = total(mask, offset, offset)
    r = total(inverse, one, one)
    ru, rv = total(inverse, offset, one), total(inverse, one, offset)
    rr = total(inverse**2, one, one)

    # Centred second moments; then the slopes (a, b) of inverse depth along x and y.
    count = np.maximum(s, 1)
    cuu, cvv, cuv = suu - su**2 / count, svv - sv**2 / count, suv - su * sv / count
    cru, crv = ru - r * su / count, rv - r * sv / count
    determinant = cuu * cvv - cuv**2
    # A third of a full neighbourhood at least, and not all of it on one line.
    solvable = known & (s >= window**2 / 3) & (determinant > 1e-6 * window**4)
    determinant = np.where(solvable, determinant, 1)
    a = (cru * cvv - crv * cuv) / determinant
    b = (crv * cuu - cru * cuv) / determinant
    residual = np.maximum(rr - r**2 / count - a * cru - b * crv, 0) / count
    solvable &= np.sqrt(residual) <= max_residual * inverse

    # 1/z = n·(x/z, y/z, 1) / d with x/z = (u - cx) / fx: the slopes are n_x / (d fx) and n_y / (d
    # fy).
    u = np.arange(intrinsics.width) - intrinsics.cx
    v = (np.arange(intrinsics.height) - intrinsics.cy)[:, None]
    plane = (r - a * su - b * sv) / count
    normals = np.stack([a * intrinsics.fx, b * intrinsics.fy, plane - a * u - b * v], axis=-1)
    length = np.linalg.norm(normals, axis=-1)
    solvable &= length > 0
    # n·X = d > 0 for the plane's visible side points away from the camera: turn it round.
    normals = -normals / np.where(solvable, length, 1)[..., None]
    normals[~solvable] = 0
    return normals.astype(np.float32)


def edges_from_labels(labels: np.ndarray) -> np.ndarray:
    """Class boundaries, two pixels wide: one on each side.

    Args:
        labels: `(H, W)` uint8 class ids, 255 = unlabelled.

    Returns:
        `(H, W)` uint8: 1 where a pixel and one of its four neighbours have different classes, 255
        where the pixel, or a neighbour that might make it an edge, is unlabelled, else 0.
    """
    edge = np.zeros(labels.shape, bool)
    unknown = labels == UNLABELLED
    beside_unknown = unknown.copy()
    for first, second in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        differ = (labels[first] != labels[second]) & ~unknown[first] & ~unknown[second]
        edge[first] |= differ
        edge[second] |= differ
        beside_unknown[first] |= unknown[second]
        beside_unknown[second] |= unknown[first]
    return np.where(edge, 1, np.where(beside_unknown, UNLABELLED, 0)).astype(np.uint8)
