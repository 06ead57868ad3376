"""Images and cameras in and out of messages as rosbags reads and writes them."""

from __future__ import annotations

import struct
import sys
from typing import Any

import cv2
import numpy as np
from rosbags.image import ImageError
from rosbags.image.image import convert_color, to_cvtype

from emu_perception.bags.reader import COMPRESSED_IMAGE, IMAGE, message_types
from emu_perception.camera import Intrinsics


def pixels(message: Any) -> np.ndarray:
    """An Image's pixels as they are stored: `(H, W)` or `(H, W, C)`, in this machine's byte order.

    Raises:
        ValueError: the encoding is unknown, or size, step and data do not fit one another.
    """
    height, width, step = message.height, message.width, message.step
    try:
        _, _, typename, channels = to_cvtype(message.encoding)
    except ImageError:
        raise ValueError(f"unknown image encoding '{message.encoding}'") from None
    dtype = np.dtype(typename)
    row = width * channels * dtype.itemsize
    if height < 1 or width < 1:
        raise ValueError(f"an image of {width} x {height} pixels has no content")
    if step < row:
        raise ValueError(f"step is {step} bytes, but {width} {message.encoding} pixels need {row}")
    # NV12 and NV21 carry half as many rows of colour below the rows of brightness.
    rows = height * 3 // 2 if message.encoding in ("nv12", "nv21") else height
    data = np.frombuffer(message.data, np.uint8)
    if data.size < (rows - 1) * step + row:
        raise ValueError(
            f"{data.size} bytes of data, but {rows} rows of {step} bytes need {rows * step}"
        )
    # The last row may lack its padding.
    strides = (step, channels * dtype.itemsize, dtype.itemsize)
    array = np.ndarray((rows, width, channels), dtype, data, strides=strides)
    if bool(message.is_bigendian) != (sys.byteorder == "big") and dtype.itemsize > 1:
        array = array.byteswap()
    return array[..., 0] if channels == 1 else array


def rgb(message: Any) -> np.ndarray:
    """An Image or CompressedImage as `(H, W, 3)` uint8 RGB.

    Raises:
        ValueError: it holds no picture that can be shown as RGB; the message says why.
    """
    if message.__msgtype__ == COMPRESSED_IMAGE:
        data = np.frombuffer(message.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if image is None:
            raise ValueError(
                f"{data.size} bytes of format '{message.format}' cannot be decoded as an image"
            )
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if message.__msgtype__ != IMAGE:
        raise ValueError(f"expected {IMAGE} or {COMPRESSED_IMAGE}, got {message.__msgtype__}")
    stored = np.ascontiguousarray(pixels(message))
    encoding = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16"}.get(
        message.encoding, message.encoding
    )
    try:
        image = convert_color(stored, encoding, "rgb8")
    except (ImageError, cv2.error) as error:
        raise ValueError(f"encoding '{message.encoding}' cannot be shown as RGB: {error}") from None
    return np.ascontiguousarray(image)


def stamp_ns(message: Any) -> int:
    """When the data was acquired, in nanoseconds, by the message's header."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header_stamp_ns(data: bytes | memoryview) -> int:
    """The same of a serialized message whose first field is its header, without decoding it."""
    if len(data) < 12:
        raise ValueError(f"{len(data)} bytes are too few for a message with a header")
    # CDR: four bytes of encapsulation, the second of which tells the byte order; then the stamp.
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def intrinsics(message: Any) -> Intrinsics | None:
    """A CameraInfo's pinhole matrix K; None where the camera is uncalibrated."""
    k = message.k
    if not (k[0] > 0 and k[4] > 0 and message.width and message.height):
        return None
    return Intrinsics(
        float(k[0]), float(k[4]), float(k[2]), float(k[5]), message.width, message.height
    )


def header(time_ns: int, frame_id: str) -> Any:
    """A std_msgs/Header."""
    types = message_types().types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(time_ns, 1_000_000_000))
    return types["std_msgs/msg/Header"](stamp, frame_id)


def image_message(image: np.ndarray, time_ns: int, frame_id: str = "camera") -> Any:
    """A sensor_msgs/Image (rgb8) of `(H, W, 3)` uint8 RGB."""
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).reshape(-1)
    return message_types().types[IMAGE](
        header(time_ns, frame_id), height, width, "rgb8", 0, 3 * width, data
    )


def compressed_image_message(
    data: bytes, image_format: str, time_ns: int, frame_id: str = "camera"
) -> Any:
    """A sensor_msgs/CompressedImage of a file's bytes; the format is `jpeg` or `png`."""
    return message_types().types[COMPRESSED_IMAGE](
        header(time_ns, frame_id), image_format, np.frombuffer(data, np.uint8)
    )


def camera_info_message(camera: Intrinsics, time_ns: int, frame_id: str = "camera") -> Any:
    """A sensor_msgs/CameraInfo of an undistorted camera."""
    types = message_types().types
    k = [camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1]
    p = [camera.fx, 0, camera.cx, 0, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0]
    return types["sensor_msgs/msg/CameraInfo"](
        header(time_ns, frame_id),
        camera.height,
        camera.width,
        "plumb_bob",
        np.zeros(5),
        np.array(k, np.float64),
        np.eye(3).reshape(-1),
        np.array(p, np.float64),
        0,
        0,
        types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )
