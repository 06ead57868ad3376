"""A model's outputs as messages that rosbags writes: the node's fields, stamps and frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from emu_perception.labels import LabelSet
from emu_perception.messages.camera_info import scale_camera_info
from emu_perception.messages.fields import image_fields, point_cloud_fields
from emu_perception.messages.topics import Encoding
from emu_perception.recordings.reader import (
    CAMERA_INFO,
    IMAGE,
    LABEL_INFO,
    POINT_CLOUD,
    message_types,
)


def image_message(header: Any, encoding: Encoding, pixels: np.ndarray) -> Any:
    """A sensor_msgs/Image of `(H, W)` or `(H, W, C)`, without padding between rows."""
    fields = image_fields(encoding, pixels)
    return message_types().types[IMAGE](header=header, data=_bytes(pixels), **fields)


def point_cloud_message(header: Any, cloud: np.ndarray) -> Any:
    """An organised sensor_msgs/PointCloud2 of a structured array `(H, W)`."""
    types = message_types().types
    values = point_cloud_fields(cloud)
    points = [types["sensor_msgs/msg/PointField"](**field) for field in values.pop("fields")]
    return types[POINT_CLOUD](header=header, fields=points, data=_bytes(cloud), **values)


def camera_info_message(
    info: Any, header: Any, image_size: tuple[int, int], size: tuple[int, int]
) -> Any:
    """The CameraInfo of an image resized from `image_size` to `size`, both (height, width)."""
    types = message_types().types
    roi = types["sensor_msgs/msg/RegionOfInterest"](
        **{n: getattr(info.roi, n) for n in ("x_offset", "y_offset", "height", "width")},
        do_rectify=info.roi.do_rectify,
    )
    names = ("height", "width", "distortion_model", "d", "k", "r", "p", "binning_x", "binning_y")
    fields = {name: getattr(info, name) for name in names}
    message = types[CAMERA_INFO](header=header, roi=roi, **fields)
    scale_camera_info(message, image_size, size)
    return message


def label_info_message(header: Any, label_set: LabelSet) -> Any:
    """A vision_msgs/LabelInfo with the names of all classes."""
    types = message_types().types
    classes = [
        types["vision_msgs/msg/VisionClass"](class_id=index, class_name=name)
        for index, name in enumerate(label_set.names)
    ]
    return types[LABEL_INFO](header=header, class_map=classes, threshold=0.0)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
