"""Fields of output messages, for every library that creates messages."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from emu_perception.messages.topics import Encoding

POINT_TYPES = {"f4": 7, "u4": 6}
"""sensor_msgs/PointField's numbers for FLOAT32 and UINT32."""


def image_fields(encoding: Encoding, pixels: np.ndarray) -> dict[str, Any]:
    """An Image's fields but header and data, for `(H, W)` or `(H, W, C)` without padding."""
    height, width = pixels.shape[:2]
    return {
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": sys.byteorder == "big",
        "step": pixels.nbytes // height,
    }


def point_cloud_fields(cloud: np.ndarray) -> dict[str, Any]:
    """A PointCloud2's fields but header and data, for a structured array `(H, W)`.

    Each of `fields` is itself a dictionary of a PointField's.
    """
    height, width = cloud.shape
    return {
        "height": height,
        "width": width,
        "fields": [
            {"name": name, "offset": offset, "datatype": POINT_TYPES[dtype.str[1:]], "count": 1}
            for name, (dtype, offset, *_) in (cloud.dtype.fields or {}).items()
        ],
        "is_bigendian": sys.byteorder == "big",
        "point_step": cloud.dtype.itemsize,
        "row_step": width * cloud.dtype.itemsize,
        "is_dense": False,
    }
