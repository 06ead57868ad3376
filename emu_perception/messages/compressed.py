"""Compressed siblings of outputs, as image_transport's plugins name and encode them.

The sibling of a colour picture is `TOPIC/compressed` (compressed_image_transport: JPEG), that of
the depth is `depth/image/compressedDepth` (compressed_depth_image_transport: inverse depth as a 16
bit PNG).
"""

from __future__ import annotations

import struct
from collections.abc import Collection

import cv2
import numpy as np

from emu_perception.messages.topics import DEPTH_TOPIC, IMAGE_OUTPUTS, available_outputs

JPEG_QUALITY = 90
JPEG_FORMAT = "rgb8; jpeg compressed bgr8"
"""`format` of a CompressedImage: encoding of the raw image, then what is stored."""
DEPTH_FORMAT = "32FC1; compressedDepth png"
PNG_LEVEL = 1
"""zlib's fastest: a higher level saves a tenth of the bytes for several times the time."""
_INVERSE_DEPTH = 0
"""`compressionFormat` of the plugin's `ConfigHeader`."""
_QUANTIZATION = 100.0
"""The plugin's default `depth_quantization`."""

PICTURES = {f"{t}/compressed": t for t, o in IMAGE_OUTPUTS.items() if o.encoding == "rgb8"}
COMPRESSED_DEPTH_TOPIC = f"{DEPTH_TOPIC}/compressedDepth"
COMPRESSED_OUTPUTS = {**PICTURES, COMPRESSED_DEPTH_TOPIC: DEPTH_TOPIC}
"""The raw topic by its sibling."""


def available_siblings(available_maps: Collection[str]) -> list[str]:
    """The compressed topics that a model with these maps can fill."""
    raw = available_outputs(available_maps)
    return [sibling for sibling, topic in COMPRESSED_OUTPUTS.items() if topic in raw]


def raw_topics(topics: Collection[str]) -> list[str]:
    """The same topics, compressed ones replaced by what they are made of."""
    return [COMPRESSED_OUTPUTS.get(topic, topic) for topic in topics]


def compress(topic: str, pixels: np.ndarray, depth_max: float) -> tuple[str, bytes]:
    """`format` and `data` of a compressed topic's message.

    Args:
        topic: one of `COMPRESSED_OUTPUTS`.
        pixels: of the raw topic.
        depth_max: metres, see `compressed_depth`.
    """
    if topic == COMPRESSED_DEPTH_TOPIC:
        return DEPTH_FORMAT, compressed_depth(pixels, depth_max)
    return JPEG_FORMAT, jpeg(pixels)


def jpeg(rgb: np.ndarray) -> bytes:
    """A JPEG file of a uint8 RGB picture `(H, W, 3)`."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return _encoded(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)


def compressed_depth(depth: np.ndarray, depth_max: float) -> bytes:
    """Depth as compressed_depth_image_transport stores a 32FC1 image.

    Twelve bytes of its `ConfigHeader` (int32 format, float32 a, float32 b), then a PNG of
    a / depth + b as uint16, 0 = invalid, with a = q (q + 1), b = 1 - a / depth_max and
    q = `depth_quantization`. The depth that is read back differs by at most depth² / (2 a), 0.3 m
    at 80 m; depth below a / (65535 - b) saturates.

    Args:
        depth: `(H, W)` float32 metres, NaN = invalid.
        depth_max: metres; larger depth becomes invalid.
    """
    a = _QUANTIZATION * (_QUANTIZATION + 1)
    b = 1 - a / depth_max
    with np.errstate(all="ignore"):
        codes = np.rint(a / depth + b)
        valid = (depth > 0) & (depth <= depth_max)
    codes = np.where(valid, np.clip(codes, 1, 65535), 0).astype(np.uint16)
    header = struct.pack("<iff", _INVERSE_DEPTH, a, b)
    return header + _encoded(".png", codes, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])


def _encoded(suffix: str, pixels: np.ndarray, options: list[int]) -> bytes:
    good, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    if not good:
        raise ValueError(f"a {pixels.shape[1]} x {pixels.shape[0]} image cannot be compressed")
    return data.tobytes()
