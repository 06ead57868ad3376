"""CameraInfo messages, sound and spoilt, with what they must yield."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.random import Generator as Rng

from emu_perception.images import is_thin
from emu_perception.inference.predictor import Predictor
from emu_perception.messages.camera_info import CameraFinder, scale_camera_info
from emu_perception.messages.errors import InputError
from emu_perception.messages.topics import DEPTH_TOPIC, POINTS_TOPIC, needed_maps
from emu_perception.reliability.judge import LONGEST_LINE, Case
from emu_perception.reliability.messages import MAX_SIDE, NUMBERS, PREDICTED, pick

FRAME = "camera"
_REALS = (0.0, -1.0, 1e-300, 1e300, 1e9, -1e9, np.nan, np.inf, -np.inf, 0.5, 2.0)


def camera_info_message(rng: Rng, size: tuple[int, int]) -> SimpleNamespace:
    """A CameraInfo of a pinhole camera or of a lens."""
    height, width = size
    focal = float(rng.uniform(0.3, 2.0) * width)
    k = np.array([focal, 0, width / 2 - 0.5, 0, focal, height / 2 - 0.5, 0, 0, 1.0])
    p = np.insert(k, (3, 6, 9), 0.0)
    model, number = pick(rng, (("plumb_bob", 5), ("rational_polynomial", 8), ("equidistant", 4)))
    d = rng.normal(0, 0.02, number) if rng.random() < 0.6 else np.zeros(number)
    roi = SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=FRAME),
        height=height,
        width=width,
        distortion_model=model,
        d=d,
        k=k,
        r=np.eye(3).reshape(-1),
        p=p,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def _spoil_info(rng: Rng, info: SimpleNamespace) -> None:
    match int(rng.integers(7)):
        case 0:
            values = pick(rng, (info.k, info.p))
            values[int(rng.integers(len(values)))] = pick(rng, _REALS)
        case 1 if len(info.d):
            info.d[int(rng.integers(len(info.d)))] = pick(rng, _REALS)
        case 2:
            info.d = rng.normal(0, 1, int(pick(rng, (0, 1, 4, 5, 8, 12, 14, 15, 100_000))))
        case 3:
            info.distortion_model = pick(rng, ("", "fisheye", "equidistant", "z" * 100_000))
        case 4:
            setattr(info, pick(rng, ("height", "width", "binning_x")), pick(rng, NUMBERS))
        case 5:
            name = pick(rng, ("x_offset", "y_offset", "height", "width"))
            setattr(info.roi, name, pick(rng, NUMBERS))
        case _:
            info.header.frame_id = pick(rng, ("", "other", "\x1b[31m", "f" * 100_000))


def camera_case(rng: Rng, index: int, predictor: Predictor) -> Case:
    """A CameraInfo with an image."""
    size = int(rng.integers(1, MAX_SIDE)), int(rng.integers(1, MAX_SIDE))
    info = camera_info_message(rng, size)
    spoilt = False
    while rng.random() < 0.6:
        _spoil_info(rng, info)
        spoilt = True
    rectification = pick(rng, ("auto", "rectified", "raw"))

    def run() -> tuple[Any, np.ndarray]:
        with np.errstate(all="ignore"):
            camera = CameraFinder().find(info, size, FRAME, "/image_raw", rectification)
            rays = camera.rays(*size)
            scale_camera_info(info, size, (max(1, size[0] // 2), max(1, size[1] // 2)))
        return camera, rays

    def check(found: tuple[Any, np.ndarray]) -> str | None:
        camera, rays = found
        seen = camera.intrinsics
        if rays.shape != (*size, 2) or rays.dtype != np.float32:
            return f"the rays are {rays.dtype} {rays.shape}"
        if not (np.isfinite([seen.fx, seen.fy, seen.cx, seen.cy]).all() and seen.fx > 0):
            return f"the camera is {seen}"
        if not spoilt and not camera.distortion.size:
            middle = (size[1] - 1) / 2 - seen.cx
            if not np.allclose(rays[0, :, 0].mean(), middle / seen.fx, atol=1e-4):
                return "the rays of a pinhole camera are others"
        if index % PREDICTED == 0 and not is_thin(*size):
            depth = predictor.predict(np.full((*size, 3), 90, np.uint8), seen).depth
            if depth is None or np.isinf(depth).any():
                return "the depth is infinite"
        return None

    return Case(run, check, sound=not spoilt)


def node_camera_case(
    rng: Rng,
    predictor: Predictor,
    send: Callable[[SimpleNamespace, SimpleNamespace, str], tuple[np.ndarray, str | None]],
    valid: bool = False,
) -> Case:
    """A CameraInfo and an image to a running node: the depth is the predictor's with the camera
    that the CameraInfo describes; without a camera, and that counted, where it must be refused."""
    side = int(rng.integers(8, MAX_SIDE))
    size = side, int(rng.integers(side, MAX_SIDE))
    info = camera_info_message(rng, size)
    while not valid and rng.random() < 0.6:
        _spoil_info(rng, info)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    message = SimpleNamespace(
        encoding="rgb8",
        height=size[0],
        width=size[1],
        step=3 * size[1],
        is_bigendian=0,
        data=image.tobytes(),
    )

    def check(found: tuple[np.ndarray, str | None]) -> str | None:
        depth, refusal = found
        try:
            camera = CameraFinder().find(info, size, FRAME, "/image")
        except InputError as error:
            camera = None
            if refusal is None:
                return f"the node took a camera_info that is refused: {error}"
        if camera is not None and refusal is not None:
            return f"the node refused a sound camera_info: {refusal}"
        if refusal is not None and (len(refusal) > LONGEST_LINE or "\n" in refusal):
            return f"a refusal of {len(refusal)} characters: {refusal[:500]}"
        intrinsics = camera.intrinsics if camera else None
        # The node's maps: with others, rounding may decide on another class and its mask.
        maps = needed_maps((DEPTH_TOPIC, POINTS_TOPIC), predictor.available_maps)
        expected = predictor.predict(image, intrinsics, maps=maps).depth
        assert expected is not None
        same = np.allclose(depth, expected, rtol=1e-4, equal_nan=True)
        return None if same else "another depth than the predictor's"

    return Case(lambda: send(info, message, FRAME), check, sound=True)
