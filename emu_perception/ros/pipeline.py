"""What happens to one image: converted, predicted, rendered, published, in the worker's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import CompressedImage

from emu_perception.outputs import (
    CAMERA_INFO_TOPIC,
    IMAGE_OUTPUTS,
    Maps,
    needed_maps,
    point_cloud,
)
from emu_perception.prediction import DEPTH_MAPS, Prediction
from emu_perception.ros.camera import CameraFinder, CameraModel
from emu_perception.ros.conversion import rgb_from_compressed, rgb_from_image
from emu_perception.ros.errors import BadInput, InputError
from emu_perception.ros.image_input import Frame, ImageInput
from emu_perception.ros.messages import camera_info_message, image_message, point_cloud_message
from emu_perception.ros.parameters import Settings
from emu_perception.ros.publishers import OutputPublishers
from emu_perception.ros.statistics import Answer, Statistics

if TYPE_CHECKING:
    from emu_perception.predictor import Predictor

WATCHED = frozenset({"semantic_uncertainty", "depth_variance"})
"""`Prediction` fields that the alarms go by."""
MEAN_STRIDE = 4
"""Pixels between those that a mean is taken over."""
JUMP = 0.5
"""Seconds that stamps must go back to count as a jump; less is two cameras out of step."""


class Pipeline:
    """Answers images with what is subscribed to.

    Args:
        predictor: runs the network.
        publishers: where the answers go.
        source: where the images come from.
        statistics: counts what happens.
        settings: gives the parameters' present values.
        report: told about bad input.
    """

    def __init__(
        self,
        predictor: Predictor,
        publishers: OutputPublishers,
        source: ImageInput,
        statistics: Statistics,
        settings: Callable[[], Settings],
        report: Callable[[BadInput, str], None],
    ) -> None:
        self._predictor = predictor
        self._publishers = publishers
        self._source = source
        self._statistics = statistics
        self._settings = settings
        self._report = report
        self._cameras = CameraFinder()
        self._size: tuple[int, int] | None = None
        self._remembered: tuple[int, int] | None = None
        self._stamp = 0.0
        self._watched = 0.0

    def process(self, frame: Frame) -> None:
        """Answer one image; whatever is wrong with it is reported, nothing is raised."""
        try:
            self._answer(frame)
        except InputError as error:
            self._report(error.kind, f"{self._source.topic}: {error}")
        except Exception as error:  # a broken frame or a full GPU must not end the thread
            self._report(
                BadInput.INFERENCE,
                f"{self._source.topic}: an image could not be answered: "
                f"{type(error).__name__}: {error}",
            )

    def _answer(self, frame: Frame) -> None:
        begin = time.monotonic()
        settings = self._settings()
        topics = self._publishers.wanted()
        watch = settings.monitor_rate > 0 and begin - self._watched >= 1 / settings.monitor_rate
        if not topics and not watch:
            return
        image = self._convert(frame, settings)
        size = image.shape[0], image.shape[1]
        self._follow_stamps(frame)
        self._follow_size(size)
        camera = self._find_camera(frame, size, settings)
        published = settings.published_size(*size)

        available = self._predictor.available_maps
        needed = needed_maps(topics, available)
        if watch:
            needed |= WATCHED & available
        limits_depth = settings.depth_std_limit < math.inf and bool(needed & DEPTH_MAPS)
        if limits_depth:
            needed |= {"depth_variance"} & available
        prediction, inference = Prediction(), 0.0
        if needed:
            self._predictor.min_confidence = settings.min_confidence
            before = time.monotonic()
            prediction = self._predictor.predict(
                image,
                camera.intrinsics if camera else None,
                maps=needed,
                output_size=published,
            )
            inference = time.monotonic() - before
            self._remember_size(size)
        style = settings.style(self._predictor.spec.depth_range[1])
        label_set = self._predictor.label_set
        maps = Maps(prediction, image, label_set, style)
        # Before the most uncertain depth is taken out: the alarm is about just that.
        means = {name: _mean(maps, name) for name in ("semantic_uncertainty", "depth_std")}
        if limits_depth:
            limited = prediction.with_depth_std_up_to(settings.depth_std_limit)
            maps = Maps(limited, image, label_set, style)
        for topic in topics:
            message = self._render(topic, maps, frame, camera, size, published)
            if message is not None:
                self._publishers.publish(topic, message)
        end = time.monotonic()
        if watch:
            self._watched = begin
        self._statistics.answered(
            Answer(
                time=end,
                latency=end - frame.received,
                inference=inference,
                overhead=end - begin - inference,
                semantic_uncertainty=means["semantic_uncertainty"],
                depth_uncertainty=means["depth_std"],
            )
        )

    def _convert(self, frame: Frame, settings: Settings) -> np.ndarray:
        convert = rgb_from_compressed if frame.message_type is CompressedImage else rgb_from_image
        return convert(frame.message, settings.max_image_pixels)

    def _follow_stamps(self, frame: Frame) -> None:
        stamp = frame.message.header.stamp
        now = stamp.sec + stamp.nanosec * 1e-9
        if now < self._stamp - JUMP:
            self._statistics.time_jumped()
        self._stamp = now

    def _follow_size(self, size: tuple[int, int]) -> None:
        before, self._size = self._size, size
        if before is not None and before != size:
            self._report(
                BadInput.SIZE_CHANGE,
                f"{self._source.topic}: the image size changed from {before[1]} x {before[0]} to "
                f"{size[1]} x {size[0]}",
            )

    def _remember_size(self, size: tuple[int, int]) -> None:
        """For the warm-up of the next start; only a size that could be answered."""
        if size != self._remembered:
            from emu_perception.engines.cache import remember_image_size

            self._remembered = size
            remember_image_size(self._predictor.path, size)

    def _find_camera(
        self, frame: Frame, size: tuple[int, int], settings: Settings
    ) -> CameraModel | None:
        """The image's camera; None, after a report where one was published, if it is unknown."""
        info = frame.camera_info
        if info is None:
            return None
        frame_id, topic = frame.message.header.frame_id, self._source.image_topic
        try:
            return self._cameras.find(info, size, frame_id, topic, settings.rectification)
        except InputError as error:
            self._report(error.kind, str(error))
            return None

    def _render(
        self,
        topic: str,
        maps: Maps,
        frame: Frame,
        camera: CameraModel | None,
        size: tuple[int, int],
        published: tuple[int, int],
    ) -> Any | None:
        """The message for a topic; None where it needs a camera that is not known."""
        header = frame.message.header
        if topic in IMAGE_OUTPUTS:
            output = IMAGE_OUTPUTS[topic]
            return image_message(header, output.encoding, output.render(maps))
        if camera is None:
            if frame.camera_info is None:
                self._report(
                    BadInput.CAMERA_INFO,
                    f"{topic} needs camera_info, and none has come on "
                    f"{self._source.camera_info_topic}",
                )
            return None
        if topic == CAMERA_INFO_TOPIC:
            return camera_info_message(frame.camera_info, header, size, published)
        return point_cloud_message(header, point_cloud(maps, camera.rays(*published)))


def _mean(maps: Maps, name: str) -> float | None:
    source = "depth_variance" if name == "depth_std" else name
    if getattr(maps.prediction, source) is None:
        return None
    values = getattr(maps, name)[::MEAN_STRIDE, ::MEAN_STRIDE]
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None
