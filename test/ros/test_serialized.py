"""Serialized images are read without copying their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from emu_perception.ros.serialized import ImageView, read_image

FIELDS = ("height", "width", "encoding", "is_bigendian", "step")


def image(frame: str = "camera", encoding: str = "rgb8", size: int = 36) -> Image:
    message = Image(header=Header(frame_id=frame), height=3, width=4, encoding=encoding, step=12)
    message.header.stamp.sec, message.header.stamp.nanosec = -5, 999_999_999
    message.is_bigendian = 1
    message.data.frombytes(np.arange(size, dtype=np.uint8).tobytes())
    return message


@settings(max_examples=60)
@given(
    frame=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9),
    encoding=st.sampled_from(["", "rgb8", "bgr8", "mono8", "bayer_rggb16", "32FC1"]),
    size=st.integers(0, 70),
)
def test_all_fields_are_read(frame: str, encoding: str, size: int) -> None:
    message = image(frame, encoding, size)
    found = read_image(serialize_message(message))
    assert isinstance(found, ImageView)
    assert found.header == message.header
    for name in FIELDS:
        assert getattr(found, name) == getattr(message, name)
    assert bytes(found.data) == message.data.tobytes()


def test_pixels_are_not_copied() -> None:
    serialized = serialize_message(image())
    found = read_image(serialized)
    assert np.shares_memory(
        np.frombuffer(found.data, np.uint8), np.frombuffer(serialized, np.uint8)
    )


@pytest.mark.parametrize("kept", [3, 10, 20, 44, 60])
def test_a_message_that_ends_early_is_left_to_rclpy(kept: int) -> None:
    with pytest.raises(rclpy_implementation.RMWError):
        read_image(serialize_message(image())[:kept])


def test_another_encapsulation_is_left_to_rclpy() -> None:
    serialized = bytearray(serialize_message(image()))
    serialized[1] = 7  # XCDR2
    try:
        found = read_image(bytes(serialized))
    except Exception:
        return
    assert isinstance(found, Image)
