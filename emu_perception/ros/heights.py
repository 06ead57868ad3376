"""The height of the points of one image, from TF or from the camera's mounting."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from emu_perception.messages.errors import BadInput, InputError
from emu_perception.messages.point_cloud import height_from_mounting, height_from_pose
from emu_perception.ros.settings import Settings


class Heights:
    """Finds the heights' coefficients for images; listens to TF where a frame is given.

    Args:
        node: the owner.
        frame: frame whose z axis points up, `height_frame`; empty: without TF.

    Raises:
        InputError: a frame is given but tf2_ros is not installed.
    """

    def __init__(self, node: Node, frame: str) -> None:
        self._frame = frame
        self._listener: Any = None
        if not frame:
            return
        try:
            import tf2_ros
        except ImportError as error:
            raise InputError(
                BadInput.PARAMETER,
                "parameter 'height_frame' needs tf2_ros, which is not installed: install it, or "
                "leave height_frame empty and give camera_height and camera_pitch",
            ) from error
        self._unavailable = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    def find(self, header: Header, settings: Settings) -> np.ndarray:
        """`(4,)` float64: height = a x + b y + c z + d, in metres, of a point of that image.

        Raises:
            InputError: TF does not know the image's frame.
        """
        if self._listener is None:
            return height_from_mounting(settings.camera_height, settings.camera_pitch)
        try:
            try:
                found = self._lookup(header, Time.from_msg(header.stamp))
            except self._unavailable:
                found = self._lookup(header, Time())  # the newest
        except self._unavailable as error:
            raise InputError(
                BadInput.TRANSFORM,
                f"no transform from '{header.frame_id}' to height_frame '{self._frame}': points "
                f"are not published: {error}",
            ) from error
        position, turn = found.transform.translation, found.transform.rotation
        return height_from_pose(position.z, (turn.x, turn.y, turn.z, turn.w))

    def _lookup(self, header: Header, time: Time) -> Any:
        return self._buffer.lookup_transform(self._frame, header.frame_id, time)

    def destroy(self) -> None:
        """End listening to TF."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None
