"""Layout and coordinates of organised clouds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.messages.point_cloud import (
    height_from_mounting,
    height_from_pose,
    limit_height,
    organized_cloud,
)

NAN = float("nan")
CAMERA = Intrinsics(2.0, 4.0, 1.0, 0.5, 3, 2)
DEPTH = np.array([[5, 10, NAN], [1, 2, 4]], np.float32)
IMAGE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
LABELS = np.array([[0, 1, 2], [255, 10, 254]], np.uint8)
UNCERTAINTY = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
STD = np.array([[1, 2, NAN], [0.5, 0, 3]], np.float32)


def full_cloud() -> np.ndarray:
    return organized_cloud(DEPTH, CAMERA.rays(), IMAGE, LABELS, UNCERTAINTY, STD)


def test_fields_and_offsets() -> None:
    cloud = full_cloud()
    assert cloud.shape == (2, 3)
    assert cloud.flags.c_contiguous
    fields = {n: (d.str[1:], offset) for n, (d, offset) in cloud.dtype.fields.items()}
    assert fields == {
        "x": ("f4", 0),
        "y": ("f4", 4),
        "z": ("f4", 8),
        "rgb": ("f4", 12),
        "label": ("u4", 16),
        "semantic_uncertainty": ("f4", 20),
        "depth_std": ("f4", 24),
    }
    assert cloud.dtype.itemsize == 28
    assert cloud.nbytes == 2 * 3 * 28


def test_only_given_fields_are_there() -> None:
    cloud = organized_cloud(DEPTH, CAMERA.rays(), IMAGE, depth_std=STD)
    assert cloud.dtype.names == ("x", "y", "z", "rgb", "depth_std")
    assert cloud.dtype.itemsize == 20
    assert cloud["z"][1, 0] == 1


def test_coordinates_are_along_the_rays() -> None:
    cloud = full_cloud()
    # x right, y down, z forward: (u - cx) z / fx, (v - cy) z / fy, z
    assert cloud[0, 0].tolist()[:3] == pytest.approx((-2.5, -0.625, 5))
    assert cloud[0, 1].tolist()[:3] == pytest.approx((0, -1.25, 10))
    assert cloud[1, 2].tolist()[:3] == pytest.approx((2, 0.5, 4))


def test_values_are_those_of_the_pixel() -> None:
    cloud = full_cloud()
    assert np.array_equal(cloud["label"], LABELS)
    assert np.array_equal(cloud["semantic_uncertainty"], UNCERTAINTY)
    assert np.array_equal(cloud["depth_std"], STD, equal_nan=True)


def test_pixels_without_depth_label_or_ray_have_nan_coordinates() -> None:
    rays = CAMERA.rays()
    rays[0, 1] = NAN
    cloud = organized_cloud(DEPTH, rays, IMAGE, LABELS)
    missing = [[False, True, True], [True, False, False]]
    for axis in "xyz":
        assert np.isnan(cloud[axis]).tolist() == missing
    # They keep their colour and class.
    assert np.isfinite(cloud["rgb"]).all()
    assert cloud["label"][1, 0] == 255


@given(red=st.integers(0, 255), green=st.integers(0, 255), blue=st.integers(0, 255))
def test_colours_are_the_bits_of_a_float(red: int, green: int, blue: int) -> None:
    image = np.full((1, 1, 3), (red, green, blue), np.uint8)
    cloud = organized_cloud(np.ones((1, 1), np.float32), np.zeros((1, 1, 2), np.float32), image)
    bits = int(np.frombuffer(cloud.tobytes()[12:16], np.uint32)[0])
    assert bits == red << 16 | green << 8 | blue


def test_message() -> None:
    pytest.importorskip("rclpy")
    from sensor_msgs.msg import PointField
    from std_msgs.msg import Header

    from emu_perception.messages.create import point_cloud_message

    cloud = full_cloud()
    message = point_cloud_message(Header(frame_id="camera_optical_frame"), cloud)
    assert message.header.frame_id == "camera_optical_frame"
    assert (message.height, message.width) == (2, 3)
    assert (message.point_step, message.row_step, len(message.data)) == (28, 84, 168)
    assert not message.is_dense
    assert [(f.name, f.offset, f.count) for f in message.fields] == [
        (name, 4 * i, 1) for i, name in enumerate(cloud.dtype.names)
    ]
    kinds = {f.name: f.datatype for f in message.fields}
    assert kinds.pop("label") == PointField.UINT32
    assert set(kinds.values()) == {PointField.FLOAT32}
    assert bytes(message.data) == cloud.tobytes()


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    focal=st.floats(1, 1000),
    seed=st.integers(0, 1000),
    missing=st.floats(0, 1),
)
def test_points_lie_on_the_rays_of_pixels_with_depth_and_label(
    size: tuple[int, int], focal: float, seed: int, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    height, width = size
    depth = rng.uniform(0.1, 80, size).astype(np.float32)
    depth[rng.random(size) < missing] = np.nan
    labels = rng.choice(np.array([0, 3, 254, 255], np.uint8), size)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    rays = Intrinsics(focal, focal, width / 2, height / 2, width, height).rays()
    rays[rng.random(size) < missing / 4] = np.nan
    cloud = organized_cloud(depth, rays, image, labels)
    valid = np.isfinite(depth) & (labels != 255) & np.isfinite(rays).all(axis=-1)
    for axis in "xyz":
        assert np.array_equal(np.isfinite(cloud[axis]), valid)
    assert np.array_equal(cloud["z"][valid], depth[valid])
    assert np.allclose(cloud["x"][valid], (rays[..., 0] * depth)[valid], rtol=1e-5)
    assert np.allclose(cloud["y"][valid], (rays[..., 1] * depth)[valid], rtol=1e-5)
    assert np.array_equal(cloud["label"], labels)
    packed = cloud["rgb"].copy().view(np.uint32)
    colours = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1)
    assert np.array_equal(colours, image)


def rotation(axis: int, angle: float) -> tuple[float, float, float, float]:
    """Unit quaternion x, y, z, w."""
    values = [0.0, 0.0, 0.0, float(np.cos(angle / 2))]
    values[axis] = float(np.sin(angle / 2))
    return values[0], values[1], values[2], values[3]


def times(p: tuple[float, ...], q: tuple[float, ...]) -> tuple[float, float, float, float]:
    (a, b, c, d), (x, y, z, w) = p, q
    return (
        d * x + a * w + b * z - c * y,
        d * y - a * z + b * w + c * x,
        d * z + a * y - b * x + c * w,
        d * w - a * x - b * y - c * z,
    )


OPTICAL = (-0.5, 0.5, -0.5, 0.5)
"""Optical frame in a camera body's frame, x forward and z up (REP-103)."""


@pytest.mark.parametrize("pitch", [0.0, 0.3, -0.2, np.pi / 2])
def test_height_of_a_pitched_camera_by_hand_and_by_pose(pitch: float) -> None:
    plane = height_from_mounting(1.5, pitch)
    # On the optical axis, 2 m ahead; then 1 m below the centre, at no distance.
    assert plane @ [0, 0, 2, 1] == pytest.approx(1.5 - 2 * np.sin(pitch))
    assert plane @ [0, 1, 0, 1] == pytest.approx(1.5 - np.cos(pitch))
    assert plane @ [7, 0, 0, 1] == pytest.approx(1.5)
    # A positive rotation about y turns the x axis downwards.
    pose = times(rotation(1, pitch), OPTICAL)
    assert height_from_pose(1.5, pose) == pytest.approx(plane, abs=1e-9)


def test_points_outside_the_band_lose_their_coordinates() -> None:
    cloud = full_cloud()
    before = cloud.copy()
    limit_height(cloud, height_from_mounting(1.0, 0.0), 0.5, 2.0)
    height = 1.0 - before["y"]
    inside = (height >= 0.5) & (height <= 2.0)
    assert 0 < inside.sum() < np.isfinite(before["y"]).sum()
    for name in ("x", "y", "z"):
        assert np.array_equal(cloud[name][inside], before[name][inside])
        assert np.isnan(cloud[name][~inside]).all()
    assert np.array_equal(cloud["label"], before["label"])
