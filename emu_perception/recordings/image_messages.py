"""Images and cameras in and out of messages as rosbags reads and writes them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.messages.images import rgb_from_compressed, rgb_from_image
from emu_perception.recordings.reader import (
    COMPRESSED_IMAGE,
    IMAGE,
    message_types,
)


def rgb(message: Any) -> np.ndarray:
    """An Image or CompressedImage as `(H, W, 3)` uint8 RGB, converted as the node converts it.

    Raises:
        ValueError: it holds no picture that can be shown as RGB; the message states why.
    """
    if message.__msgtype__ == COMPRESSED_IMAGE:
        return rgb_from_compressed(message)
    if message.__msgtype__ == IMAGE:
        return rgb_from_image(message)
    raise ValueError(f"expected {IMAGE} or {COMPRESSED_IMAGE}, got {message.__msgtype__}")


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
