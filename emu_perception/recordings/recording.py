"""The images of a recording, decoded one by one; what cannot be read is named and counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.messages.camera_info import CameraFinder, CameraModel
from emu_perception.messages.errors import InputError
from emu_perception.recordings.image_messages import camera_info_message, header_stamp_ns, rgb
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.reader import (
    BagError,
    BagMessage,
    BagReader,
)


@dataclass(frozen=True)
class RecordedImage:
    """One image of a recording, decoded."""

    index: int
    """Its place among the images of the recording, those that cannot be decoded included."""
    stamp_ns: int
    header: Any
    """The std_msgs/Header of its message."""
    image: np.ndarray
    """`(H, W, 3)` uint8 RGB."""
    camera_info: Any | None
    """The last CameraInfo before it."""
    camera: CameraModel | None
    """Camera model of this image; None if camera_info is missing or unusable."""


class ImageDecoder:
    """Takes the messages of a recording in their order, gives the images among them.

    Args:
        bag: an open recording.
        topic: with the images; None for the only one.
        problems: counts what is wrong.
        excluded: topics whose images are not the camera's.
        camera: returns the intrinsics for a width and height, in place of the recording's
            camera_info.

    Raises:
        BagError: the bag has no such topic.
    """

    def __init__(
        self,
        bag: BagReader,
        topic: str | None,
        problems: Problems,
        excluded: Collection[str] = (),
        camera: Callable[[int, int], Intrinsics | None] | None = None,
    ) -> None:
        self._bag, self._problems, self._given = bag, problems, camera
        count_damage(bag, problems)
        self.source = bag.image_topic(topic, excluded)
        self._info_topic = None if camera else bag.camera_info_topic(self.source.name)
        self._cameras = CameraFinder()
        self._info: Any = None
        self._last_stamp: int | None = None
        self._last_size: tuple[int, int] | None = None
        self.taken = 0
        """Images so far, those that could not be decoded included."""

    @property
    def topics(self) -> list[str]:
        """Topics of the images and their CameraInfo."""
        return [t.name for t in (self.source, self._info_topic) if t is not None]

    @property
    def has_camera(self) -> bool:
        """Whether there is a camera_info topic, or the camera is given."""
        return self._info_topic is not None or self._given is not None

    def images(self) -> Iterator[RecordedImage]:
        """All images that can be decoded."""
        for message in messages(self._bag, self.topics, self._problems):
            image = self.take(message)
            if image is not None:
                yield image

    def take(self, message: BagMessage) -> RecordedImage | None:
        """The image of a message; None for other messages, and for what cannot be decoded."""
        if self._info_topic is not None and message.topic == self._info_topic.name:
            try:
                self._info = self._bag.decode(message)
            except BagError as error:
                self._problems.count("unusable camera_info", str(error))
        if message.topic != self.source.name:
            return None
        index, self.taken = self.taken, self.taken + 1
        where = f"image {index}"
        try:
            decoded = self._bag.decode(message)
            stamp = header_stamp_ns(message.data)
            image = rgb(decoded)
        except ValueError as error:
            self._problems.count("unreadable image", f"{where}: {error}")
            return None
        if self._last_stamp is not None and stamp < self._last_stamp:
            back = (self._last_stamp - stamp) * 1e-9
            self._problems.count(
                "stamp going backwards", f"{where} is {back:.3f} s before the last"
            )
        size = (image.shape[0], image.shape[1])
        if self._last_size is not None and size != self._last_size:
            self._problems.count("change of image size", f"{where} is {size[1]} x {size[0]}")
        self._last_stamp, self._last_size = stamp, size
        known = self._given(size[1], size[0]) if self._given else None
        if known is not None:
            self._info = camera_info_message(known, stamp, decoded.header.frame_id)
        camera = self._camera(where, size, decoded.header.frame_id)
        return RecordedImage(index, stamp, decoded.header, image, self._info, camera)

    def _camera(self, where: str, size: tuple[int, int], frame_id: str) -> CameraModel | None:
        if self._info is None:
            return None
        topic = self.source.name.removesuffix("/compressed")
        try:
            return self._cameras.find(self._info, size, frame_id, topic)
        except InputError as error:
            self._problems.count("unusable camera_info", f"{where}: {error}")
            return None


def count_damage(bag: BagReader, problems: Problems) -> None:
    """Count what was found to be wrong with the files of a recording."""
    for damage in bag.damage:
        problems.count("damaged recording", damage)


def messages(bag: BagReader, topics: list[str] | None, problems: Problems) -> Iterator[BagMessage]:
    """The messages of a recording up to where it is damaged, which is counted."""
    try:
        yield from bag.messages(topics)
    except BagError as error:
        problems.count("unreadable recording", str(error))
