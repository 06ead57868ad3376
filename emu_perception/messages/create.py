"""Arrays into messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from emu_perception.labels import LabelSet
from emu_perception.messages.camera_info import scale_camera_info
from emu_perception.messages.fields import image_fields, point_cloud_fields
from emu_perception.messages.topics import Encoding

try:
    from vision_msgs.msg import LabelInfo as LabelInfo
    from vision_msgs.msg import VisionClass
except ImportError:  # not among the ROS packages that pip installs
    LabelInfo = VisionClass = None


def image_message(header: Header, encoding: Encoding, pixels: np.ndarray) -> Image:
    """An Image of `(H, W)` or `(H, W, C)`, without padding between rows."""
    message = Image(header=header, **image_fields(encoding, pixels))
    _fill(message.data, pixels)
    return message


def compressed_image_message(header: Header, form: str, data: bytes) -> CompressedImage:
    """A CompressedImage; `form` is its field `format`."""
    message = CompressedImage(header=header, format=form)
    message.data.frombytes(data)
    return message


def point_cloud_message(header: Header, cloud: np.ndarray) -> PointCloud2:
    """An organised PointCloud2 of a structured array `(H, W)`."""
    values = point_cloud_fields(cloud)
    points = [PointField(**field) for field in values.pop("fields")]
    message = PointCloud2(header=header, fields=points, **values)
    _fill(message.data, cloud.view(np.uint8))
    return message


def camera_info_message(
    info: Any, header: Header, image_size: tuple[int, int], size: tuple[int, int]
) -> CameraInfo:
    """The CameraInfo of an image resized from `image_size` to `size`, both (height, width)."""
    message = CameraInfo(
        header=header,
        height=info.height,
        width=info.width,
        distortion_model=info.distortion_model,
        d=info.d,
        k=info.k,
        r=info.r,
        p=info.p,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
    )
    for name in ("x_offset", "y_offset", "height", "width", "do_rectify"):
        setattr(message.roi, name, getattr(info.roi, name))
    scale_camera_info(message, image_size, size)
    return message


def label_info_message(header: Header, label_set: LabelSet, threshold: float) -> Any:
    """A vision_msgs/LabelInfo; `threshold` is the confidence below which labels are dropped."""
    message = LabelInfo(header=header, threshold=float(threshold))
    message.class_map = [
        VisionClass(class_id=index, class_name=name) for index, name in enumerate(label_set.names)
    ]
    return message


def _fill(data: Any, values: np.ndarray) -> None:
    # Assigning an array to the field would check it byte by byte: half a second for 1080p.
    if values.size:
        data.frombytes(np.ascontiguousarray(values).data.cast("B"))
