"""Compressed siblings, decoded as image_transport's plugins decode them."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_perception.messages.compressed import (
    COMPRESSED_DEPTH_TOPIC,
    COMPRESSED_OUTPUTS,
    PICTURES,
    available_siblings,
    compress,
    compressed_depth,
    jpeg,
    raw_topics,
)


def decode(data: bytes) -> tuple[np.ndarray, float]:
    """`decodeCompressedDepthImage` of compressed_depth_image_transport, and its a."""
    kind, a, b = struct.unpack("<iff", data[:12])
    assert kind == 0  # INV_DEPTH
    codes = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert codes.dtype == np.uint16 and codes.ndim == 2
    depth = np.full(codes.shape, np.nan, np.float32)
    known = codes != 0
    depth[known] = np.float32(a) / (codes[known].astype(np.float32) - np.float32(b))
    return depth, a


@given(
    arrays(
        np.float32,
        (7, 9),
        elements=st.one_of(
            st.floats(0.25, 80, width=32), st.sampled_from([np.nan, np.inf, 0.0, -1.0, 200.0])
        ),
    )
)
def test_depth_comes_back(depth: np.ndarray) -> None:
    found, a = decode(compressed_depth(depth, 80.0))
    valid = (depth > 0) & (depth <= 80)
    assert np.array_equal(np.isfinite(found), valid)
    error = np.abs(found[valid] - depth[valid])
    assert (error <= depth[valid] ** 2 / (2 * a) * 1.02 + 1e-5).all()


def test_what_is_too_near_saturates() -> None:
    found, _ = decode(compressed_depth(np.array([[1e-6, 0.01, 0.16, 80.0]], np.float32), 80.0))
    assert np.isfinite(found).all()
    assert found[0, 0] == found[0, 1] == pytest.approx(10100 / (65535 + 125.25), rel=1e-3)
    assert found[0, 3] == pytest.approx(80, rel=1e-4)


def test_pictures_are_jpeg_in_the_right_colours() -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24], picture[:, 24:] = (250, 10, 10), (10, 10, 250)
    data = jpeg(picture)
    assert data.startswith(b"\xff\xd8")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    middle = np.abs(decoded.astype(int) - picture)[:, [5, 40]]
    assert middle.max() < 12


def test_formats_and_names() -> None:
    assert set(PICTURES) == {
        "overlay/compressed", "semantic/color/compressed", "semantic/uncertainty_color/compressed",
        "depth/color/compressed", "depth/uncertainty_color/compressed",
    }  # fmt: skip
    form, _ = compress("overlay/compressed", np.zeros((4, 4, 3), np.uint8), 80.0)
    assert form == "rgb8; jpeg compressed bgr8"
    form, _ = compress(COMPRESSED_DEPTH_TOPIC, np.ones((4, 4), np.float32), 80.0)
    assert (COMPRESSED_DEPTH_TOPIC, form) == (
        "depth/image/compressedDepth",
        "32FC1; compressedDepth png",
    )
    assert available_siblings({"depth"}) == ["depth/color/compressed", COMPRESSED_DEPTH_TOPIC]
    assert len(available_siblings({"labels", "semantic_entropy", "depth", "depth_variance"})) == 6
    assert raw_topics(["points", *COMPRESSED_OUTPUTS])[0] == "points"
    assert raw_topics([COMPRESSED_DEPTH_TOPIC]) == ["depth/image"]
