"""Reads a serialized sensor_msgs/Image without copying its pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

_ENCAPSULATION = 4
_MAX_NAME = 4096
"""Bytes of a frame or encoding; more is no image."""


@dataclass(frozen=True)
class ImageView:
    """The fields of a sensor_msgs/Image; `data` shares the serialized message's memory."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


def read_image(serialized: bytes) -> Any:
    """A serialized sensor_msgs/Image as an `ImageView`, or as a deserialized message where it is
    not in plain CDR (OMG DDSI-RTPS 10.2)."""
    try:
        return _read(serialized)
    except (struct.error, IndexError, ValueError):
        return deserialize_message(serialized, Image)


def _read(serialized: bytes) -> ImageView:
    if serialized[:2] not in (b"\x00\x00", b"\x00\x01"):
        raise ValueError("not in plain CDR")
    order = "<" if serialized[1] else ">"
    # Alignment counts from the end of the encapsulation.
    body = memoryview(serialized)[_ENCAPSULATION:]
    seconds, nanoseconds = struct.unpack_from(order + "iI", body, 0)
    frame_id, end = _string(body, 8, order)
    height, width = struct.unpack_from(order + "II", body, end := _aligned(end))
    encoding, end = _string(body, end + 8, order)
    is_bigendian = body[end]
    step, size = struct.unpack_from(order + "II", body, end := _aligned(end + 1))
    data = body[end + 8 : end + 8 + size]
    if len(data) != size:
        raise ValueError("the message ends early")
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = seconds, nanoseconds
    return ImageView(header, height, width, encoding, is_bigendian, step, data)


def _aligned(offset: int) -> int:
    return (offset + 3) & ~3


def _string(body: memoryview, offset: int, order: str) -> tuple[str, int]:
    """A string and the offset of its end; its length counts the zero byte at the end."""
    offset = _aligned(offset)
    (length,) = struct.unpack_from(order + "I", body, offset)
    end = offset + 4 + length
    if not 1 <= length <= _MAX_NAME or end > len(body):
        raise ValueError("no string")
    return bytes(body[offset + 4 : end - 1]).decode("utf-8"), end
