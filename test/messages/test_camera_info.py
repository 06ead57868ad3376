"""From CameraInfo to rays, against OpenCV."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.messages.camera_info import (
    camera_model,
    is_rectified,
    scale_camera_info,
)
from emu_perception.messages.errors import BadInput, InputError

HEIGHT, WIDTH = 96, 128
SIZE = (HEIGHT, WIDTH)
FRAME = "camera_optical_frame"
K = np.array([[110.0, 0, 62.5], [0, 112.0, 49.0], [0, 0, 1]])
P = np.array([[100.0, 0, 60.0, -12.0], [0, 101.0, 47.0, 0.0], [0, 0, 1, 0]])
DISTORTIONS = {
    "plumb_bob": [-0.28, 0.09, 0.001, -0.0015, -0.01],
    "rational_polynomial": [0.6, 0.1, 0.0005, -0.0004, 0.005, 0.95, 0.25, 0.02],
    "equidistant": [-0.03, 0.01, -0.004, 0.001],
}


def camera_info(**changes: Any) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    values = {
        "header": SimpleNamespace(frame_id=FRAME),
        "height": HEIGHT,
        "width": WIDTH,
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": K.ravel(),
        "p": P.ravel(),
        "binning_x": 0,
        "binning_y": 0,
        "roi": roi,
    }
    assert values.keys() >= changes.keys()
    return SimpleNamespace(**(values | changes))


def region(x: int, y: int, width: int, height: int) -> SimpleNamespace:
    return SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)


def model(info: SimpleNamespace, size: tuple[int, int] = SIZE, rectified: bool = False) -> Any:
    return camera_model(info, size, FRAME, rectified)


# Intrinsics


def test_a_raw_image_has_k_and_a_rectified_one_p() -> None:
    info = camera_info(d=DISTORTIONS["plumb_bob"])
    raw, rectified = model(info), model(info, rectified=True)
    assert (raw.intrinsics.fx, raw.intrinsics.cy) == (110, 49)
    assert raw.distortion.size == 5
    assert (rectified.intrinsics.fx, rectified.intrinsics.cy) == (100, 47)
    assert rectified.distortion.size == 0


def test_an_empty_p_falls_back_to_k() -> None:
    assert model(camera_info(p=np.zeros(12)), rectified=True).intrinsics.fx == 110


def test_binning_keeps_pixel_edges_in_place() -> None:
    camera = model(camera_info(binning_x=2, binning_y=4), (24, 64)).intrinsics
    assert (camera.fx, camera.fy) == (55, 28)
    assert (camera.cx, camera.cy) == ((62.5 + 0.5) / 2 - 0.5, (49 + 0.5) / 4 - 0.5)


def test_a_region_of_interest_moves_the_principal_point() -> None:
    camera = model(camera_info(roi=region(10, 20, 64, 48)), (48, 64)).intrinsics
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (110, 112, 52.5, 29)


def test_the_offset_of_a_binned_region_is_in_pixels_of_the_sensor() -> None:
    info = camera_info(roi=region(10, 20, 64, 48), binning_x=2, binning_y=2)
    camera = model(info, (24, 32)).intrinsics
    assert (camera.fx, camera.cx, camera.cy) == (55, 53 / 2 - 0.5, 29.5 / 2 - 0.5)


@pytest.mark.parametrize(
    ("info", "size", "frame", "text"),
    [
        (camera_info(k=np.zeros(9)), SIZE, FRAME, r"uncalibrated \(K\[0\] = 0\).*calibrate"),
        # Rays of these overflow.
        (camera_info(k=K.ravel() * 1e-300), SIZE, FRAME, "outside 0.001 to 1e"),
        (camera_info(k=np.where(K == 62.5, 1e300, K).ravel()), SIZE, FRAME, "outside 0.001 to"),
        (camera_info(), (48, 64), FRAME, "for 128 x 96 pixels.*the image has 64 x 48"),
        (camera_info(binning_x=2, binning_y=2), SIZE, FRAME, "for 64 x 48 pixels"),
        (camera_info(roi=region(0, 0, 20, 10)), SIZE, FRAME, "for 20 x 10 pixels"),
        (camera_info(), SIZE, "other", f"in the frame '{FRAME}', the image in 'other'"),
        (camera_info(k=[np.nan] * 9), SIZE, FRAME, "NaN or infinite"),
        (camera_info(d=[np.inf] * 5), SIZE, FRAME, "NaN or infinite"),
        (camera_info(d=[0.1] * 3), SIZE, FRAME, "'plumb_bob' with 3 coefficients.*4 or 5"),
        (camera_info(d=[0.1] * 5, distortion_model="ptlens"), SIZE, FRAME, "'ptlens'"),
        (camera_info(height=0, width=0), SIZE, FRAME, "for 0 x 0 pixels"),
    ],
)
def test_unusable_camera_info(
    info: SimpleNamespace, size: tuple[int, int], frame: str, text: str
) -> None:
    with pytest.raises(InputError, match=text) as caught:
        camera_model(info, size, frame, rectified=False)
    assert caught.value.kind is BadInput.CAMERA_INFO
    assert str(caught.value).startswith("camera_info ")


@pytest.mark.parametrize(("info_frame", "image_frame"), [("", FRAME), (FRAME, "")])
def test_a_missing_frame_belongs_to_any(info_frame: str, image_frame: str) -> None:
    info = camera_info(header=SimpleNamespace(frame_id=info_frame))
    assert camera_model(info, SIZE, image_frame, rectified=False).intrinsics.fx == 110


@pytest.mark.parametrize(
    ("topic", "d", "rectification", "expected"),
    [
        ("/camera/image_raw", [0.1] * 5, "auto", False),
        ("/camera/image_rect_color", [0.1] * 5, "auto", True),
        ("/rect/image_raw", [0.1] * 5, "auto", False),
        ("/camera/image_raw", [0.0] * 5, "auto", True),
        ("/camera/image_raw", [], "auto", True),
        ("/camera/image_raw", [0.1] * 5, "rectified", True),
        ("/rectified", [0.1] * 5, "auto", True),
        ("/camera/Image_Rect", [0.1] * 5, "auto", True),
        ("/camera/image_direct", [0.1] * 5, "auto", False),
        ("/camera/image_corrected", [0.1] * 5, "auto", False),
        ("/camera/image_rect", [0.0] * 5, "raw", False),
    ],
)
def test_is_rectified(topic: str, d: list[float], rectification: str, expected: bool) -> None:
    assert is_rectified(camera_info(d=d), topic, rectification) is expected


# Rays


LARGER = 4
LARGE_K = np.diag([LARGER, LARGER, 1]) @ K


def exact_rays(name: str, pixels: np.ndarray) -> np.ndarray:
    """What OpenCV says of pixels `(..., 2)` of the larger image."""
    points = pixels.reshape(-1, 1, 2).astype(np.float64)
    d = np.array(DISTORTIONS[name])
    if name == "equidistant":
        return cv2.fisheye.undistortPoints(points, LARGE_K, d).reshape(pixels.shape)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-8)
    if hasattr(cv2, "undistortPointsIter"):
        rays = cv2.undistortPointsIter(points, LARGE_K, d, None, None, criteria)
    else:
        rays = cv2.undistortPoints(points, LARGE_K, d, criteria=criteria)
    return rays.reshape(pixels.shape)


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("factor", [1, 2])
def test_rays_of_a_raw_image_agree_with_opencv(name: str, factor: int) -> None:
    size = (LARGER * HEIGHT, LARGER * WIDTH)
    values = {"height": size[0], "width": size[1], "k": LARGE_K.ravel()}
    info = camera_info(**values, d=DISTORTIONS[name], distortion_model=name)
    height, width = size[0] // factor, size[1] // factor
    rays = model(info, size).rays(height, width)
    assert rays.shape == (height, width, 2)
    assert rays.dtype == np.float32
    assert np.isfinite(rays).all()
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    expected = exact_rays(name, np.stack([u, v], -1) * factor - 0.5)
    focal = LARGE_K[0, 0] / factor
    assert np.abs(rays - expected).max() * focal < 0.05
    # The distortion is not left out.
    plain = model(camera_info(**values), size).rays(height, width)
    assert np.abs(rays - plain).max() * focal > 1


WIDE_LENSES = {
    "fisheye, 203 degrees": (180.0, "equidistant", [0.01, -0.002, 0.0005, -0.0001]),
    "fisheye, 150 degrees": (240.0, "equidistant", [-0.03, 0.01, -0.004, 0.001]),
    "plumb_bob, 106 degrees": (240.0, "plumb_bob", [-0.2, 0.035, 0.001, -0.001, -0.0025]),
    "rational, 116 degrees": (
        200.0,
        "rational_polynomial",
        [0.6, 0.1, 0, 0, 0.005, 0.95, 0.25, 0.02],
    ),
}


@pytest.mark.parametrize("name", WIDE_LENSES)
def test_rays_of_a_wide_lens_hit_their_pixels(name: str) -> None:
    focal, kind, distortion = WIDE_LENSES[name]
    k = np.array([[focal, 0, 320.3], [0, focal, 239.1], [0, 0, 1]])
    info = camera_info(height=480, width=640, k=k.ravel(), d=distortion, distortion_model=kind)
    rays = model(info, (480, 640)).rays(480, 640).astype(np.float64)
    if kind == "equidistant":
        seen = cv2.fisheye.distortPoints(rays.reshape(-1, 1, 2), k, np.array(distortion))
    else:
        points = np.concatenate([rays.reshape(-1, 2), np.ones((480 * 640, 1))], axis=1)
        seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, np.array(distortion))
    error = seen.reshape(480, 640, 2) - np.stack(np.meshgrid(np.arange(640), np.arange(480)), -1)
    assert np.isfinite(error).mean() > 0.7
    assert np.nanmax(np.abs(error)) < 0.1


@pytest.mark.parametrize("d", [[0.0] * 5, []])
def test_rays_of_a_pinhole(d: list[float]) -> None:
    rays = model(camera_info(d=d)).rays(HEIGHT, WIDTH)
    assert rays[49, 62] == pytest.approx([-0.5 / 110, 0], abs=1e-6)
    assert rays[0, 0] == pytest.approx([-62.5 / 110, -49 / 112], abs=1e-6)


def test_rays_of_a_rectified_image_ignore_the_distortion() -> None:
    rays = model(camera_info(d=DISTORTIONS["plumb_bob"]), rectified=True).rays(HEIGHT, WIDTH)
    assert rays[0, 0] == pytest.approx([-60 / 100, -47 / 101], abs=1e-6)


def test_pixels_outside_the_lens_have_no_ray() -> None:
    # A full circle of 2 x 90 degrees and a bit lies inside the image; corners lie behind.
    k = np.array([[30.0, 0, 63.5], [0, 30.0, 47.5], [0, 0, 1]])
    info = camera_info(k=k.ravel(), d=[0.001, 0, 0, 0], distortion_model="equidistant")
    rays = model(info).rays(HEIGHT, WIDTH)
    assert np.isnan(rays[0, 0]).all()
    assert np.isnan(rays[-1, -1]).all()
    assert np.isfinite(rays[30:66, 45:83]).all()
    assert rays[47, 63] == pytest.approx([-0.5 / 30, -0.5 / 30], abs=2e-3)


def test_rays_are_worked_out_once_per_size() -> None:
    camera = model(camera_info(d=DISTORTIONS["plumb_bob"]))
    first = camera.rays(*SIZE)
    assert camera.rays(*SIZE) is first
    assert camera.rays(48, 64).shape == (48, 64, 2)


# The published CameraInfo


def test_scaled_camera_info() -> None:
    info = camera_info()
    scale_camera_info(info, SIZE, (24, 64))
    assert (info.height, info.width) == (24, 64)
    k, p = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))
    assert k == pytest.approx(np.array([[55, 0, 63 / 2 - 0.5], [0, 28, 49.5 / 4 - 0.5], [0, 0, 1]]))
    assert p == pytest.approx(
        np.array([[50, 0, 60.5 / 2 - 0.5, -6], [0, 25.25, 47.5 / 4 - 0.5, 0], [0, 0, 1, 0]])
    )


@settings(max_examples=60)
@given(
    binning=st.sampled_from([0, 1, 2, 4]),
    x=st.integers(0, 20),
    y=st.integers(0, 20),
    height=st.integers(1, 48),
    width=st.integers(1, 64),
)
def test_the_published_camera_is_that_of_the_image(
    binning: int, x: int, y: int, height: int, width: int
) -> None:
    """Reading what was published gives the image's own camera, resized."""
    info = camera_info(roi=region(x, y, 64, 48), binning_x=binning, binning_y=binning)
    size = (48 // max(binning, 1), 64 // max(binning, 1))
    expected = [model(info, size, rectified=r).intrinsics.resized(width, height) for r in (0, 1)]
    scale_camera_info(info, size, (height, width))
    for rectified, camera in enumerate(expected):
        found = model(info, (height, width), rectified=bool(rectified)).intrinsics
        for name in ("fx", "fy", "cx", "cy", "width", "height"):
            assert getattr(found, name) == pytest.approx(getattr(camera, name))


def test_scaling_real_messages() -> None:
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header

    from emu_perception.messages.create import camera_info_message

    info = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob")
    info.d, info.k, info.p = DISTORTIONS["plumb_bob"], K.ravel(), P.ravel()
    message = camera_info_message(info, Header(frame_id=FRAME), SIZE, (48, 64))
    assert message.header.frame_id == FRAME
    assert (message.height, message.width, message.p[0], message.p[3]) == (48, 64, 50, -6)
    assert list(message.d) == DISTORTIONS["plumb_bob"]
    # The camera's own message is another's to keep.
    assert (info.height, info.k[0], info.p[3]) == (HEIGHT, 110, -12)
