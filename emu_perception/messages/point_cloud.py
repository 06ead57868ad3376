"""Organised point clouds: one point per pixel, with its class and the uncertainty of both tasks."""

from __future__ import annotations

import numpy as np

from emu_perception.prediction import UNLABELLED


def organized_cloud(
    depth: np.ndarray,
    rays: np.ndarray,
    image: np.ndarray,
    labels: np.ndarray | None = None,
    semantic_uncertainty: np.ndarray | None = None,
    depth_std: np.ndarray | None = None,
) -> np.ndarray:
    """Points in the optical frame (REP-103: x right, y down, z forward).

    Args:
        depth: `(H, W)` float32 metres along the optical axis, NaN = invalid.
        rays: `(H, W, 2)` float32, x/z and y/z of each pixel's ray; NaN where the lens shows none.
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` uint8 class ids; pixels that are unlabelled (255) get NaN coordinates.
        semantic_uncertainty: `(H, W)` float32.
        depth_std: `(H, W)` float32 metres.

    Returns:
        A structured array `(H, W)` without padding: x, y, z, rgb (float32, its bits being
        0x00RRGGBB), then label (uint32), semantic_uncertainty and depth_std (float32), those that
        were given. Pixels without a valid depth have NaN coordinates.
    """
    optional = {
        "label": (np.uint32, labels),
        "semantic_uncertainty": (np.float32, semantic_uncertainty),
        "depth_std": (np.float32, depth_std),
    }
    fields: list[tuple[str, type]] = [(name, np.float32) for name in ("x", "y", "z", "rgb")]
    fields += [(name, dtype) for name, (dtype, values) in optional.items() if values is not None]
    cloud = np.empty(depth.shape, np.dtype(fields))

    has_point = np.isfinite(rays[..., 0])
    if labels is not None:
        has_point &= labels != UNLABELLED
    z = np.where(has_point, depth, np.float32(np.nan))
    cloud["x"] = rays[..., 0] * z
    cloud["y"] = rays[..., 1] * z
    cloud["z"] = z
    red, green, blue = (image[..., channel].astype(np.uint32) for channel in range(3))
    cloud["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)
    for name, (_, values) in optional.items():
        if values is not None:
            cloud[name] = values
    return cloud


def height_from_mounting(camera_height: float, camera_pitch: float) -> np.ndarray:
    """Coefficients of the height of points in the optical frame of a camera without roll.

    Args:
        camera_height: metres of the optical centre above the ground.
        camera_pitch: radians by which the camera looks down, as a rotation about y (REP-103).

    Returns:
        `(4,)` float64 a, b, c, d: height = a x + b y + c z + d, in metres.
    """
    return np.array([0.0, -np.cos(camera_pitch), -np.sin(camera_pitch), camera_height])


def height_from_pose(height: float, rotation: tuple[float, float, float, float]) -> np.ndarray:
    """The same from the camera's pose in a frame whose z axis points up.

    Args:
        height: z of the optical centre, metres.
        rotation: unit quaternion x, y, z, w of the optical frame in that frame.
    """
    x, y, z, w = rotation
    return np.array([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), height])


def limit_height(cloud: np.ndarray, plane: np.ndarray, lowest: float, highest: float) -> None:
    """Set the coordinates of points outside a band of heights to NaN, in place.

    Args:
        cloud: structured array with x, y, z in metres, as from `organized_cloud`.
        plane: `(4,)`, the coefficients of the height.
        lowest: metres, inclusive.
        highest: metres, inclusive.
    """
    a, b, c, d = plane.astype(np.float32)
    height = a * cloud["x"] + b * cloud["y"] + c * cloud["z"] + d
    outside = ~((height >= lowest) & (height <= highest))
    for name in ("x", "y", "z"):
        cloud[name][outside] = np.nan
