"""The stages of one camera's images: converted, predicted, published, each in its own thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import CompressedImage

from emu_perception.messages.camera_info import CameraFinder, CameraModel, assumed_camera
from emu_perception.messages.compressed import COMPRESSED_OUTPUTS, compress, raw_topics
from emu_perception.messages.create import (
    camera_info_message,
    compressed_image_message,
    image_message,
    point_cloud_message,
)
from emu_perception.messages.errors import BadInput, InputError
from emu_perception.messages.images import rgb_from_compressed, rgb_from_image
from emu_perception.messages.point_cloud import limit_height
from emu_perception.messages.topics import (
    CAMERA_INFO_TOPIC,
    Maps,
    image_output,
    needed_maps,
    point_cloud,
)
from emu_perception.prediction import DEPTH_MAPS, Prediction
from emu_perception.ros.heights import Heights
from emu_perception.ros.image_input import Frame, ImageInput
from emu_perception.ros.publishers import OutputPublishers
from emu_perception.ros.settings import Settings
from emu_perception.ros.statistics import Answer, Statistics

if TYPE_CHECKING:
    from emu_perception.inference.predictor import Predictor

WATCHED = frozenset({"semantic_entropy", "depth_variance"})
"""`Prediction` fields that the alarms go by."""
DOMAIN = frozenset({"domain_distance"})
"""`Prediction` field that an alarm goes by, with every answer: it costs nothing."""
MEAN_STRIDE = 4
"""Pixels between those that a mean is taken over."""
BYTES_PER_PIXEL = {"mono8": 1, "rgb8": 3, "32FC1": 4, "32FC3": 12}
POINT_BYTES = 28
JUMP = 0.5
"""Seconds that stamps must go back to count as a jump; less is two cameras out of step."""


@dataclass(frozen=True)
class Prepared:
    """An image that the network can take, with what is wanted of it."""

    frame: Frame
    image: np.ndarray
    """uint8 RGB `(H, W, 3)`."""
    info: Any | None
    """Its CameraInfo."""
    camera: CameraModel | None
    topics: tuple[str, ...]
    watch: bool
    """Whether the alarms need it."""
    settings: Settings
    seconds: float
    """That its preparation took."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def published_size(self) -> tuple[int, int]:
        """Height and width of the outputs."""
        return self.settings.published_size(*self.size)


@dataclass(frozen=True)
class Inferred:
    """An image with its prediction."""

    prepared: Prepared
    prediction: Prediction
    seconds: float
    """Inside the predictor."""


class Pipeline:
    """Answers the images of one camera with what is subscribed to: the worker's `Stages`.

    Args:
        predictor: runs the network.
        publishers: where the answers go.
        source: where the images come from.
        heights: of the points.
        statistics: counts what happens.
        settings: gives the parameters' present values.
        report: called with bad input.
    """

    def __init__(
        self,
        predictor: Predictor,
        publishers: OutputPublishers,
        source: ImageInput,
        heights: Heights,
        statistics: Statistics,
        settings: Callable[[], Settings],
        report: Callable[[BadInput, str], None],
    ) -> None:
        self._predictor = predictor
        self._publishers = publishers
        self._source = source
        self._heights = heights
        self._statistics = statistics
        self._settings = settings
        self._report = report
        self._cameras = CameraFinder()
        self._assumed: tuple[tuple[float, tuple[int, int]], CameraModel] | None = None
        self._size: tuple[int, int] | None = None
        self._remembered: tuple[int, int] | None = None
        self._stamp = 0.0
        self._watched = 0.0

    # Whatever is wrong with an image is reported, nothing is raised: a broken frame or a full GPU
    # must not end a thread.

    def prepare(self, frame: Frame) -> Prepared | None:
        """Convert an image, find its camera and what is wanted; None: nothing, or a bad image."""
        return self._guarded(self._prepare, frame)

    def infer(self, prepared: Prepared) -> Inferred | None:
        """Run the network."""
        return self._guarded(self._infer, prepared)

    def publish(self, inferred: Inferred) -> None:
        """Render and publish the outputs, the largest messages last."""
        self._guarded(self._publish, inferred)

    def overtaken(self) -> None:
        """Count an image that a newer one replaced."""
        self._statistics.overtaken()

    def unwanted(self) -> None:
        """Count an image that the stopping node leaves unanswered."""
        self._statistics.unwanted()

    def _guarded(self, stage: Callable[[Any], Any], item: Any) -> Any:
        try:
            return stage(item)
        except InputError as error:
            self._report(error.kind, f"{self._source.topic}: {error}")
        except Exception as error:
            self._report(
                BadInput.INFERENCE,
                f"{self._source.topic}: an image could not be answered: "
                f"{type(error).__name__}: {error}",
            )
        return None

    def _prepare(self, frame: Frame) -> Prepared | None:
        begin = time.monotonic()
        settings = self._settings()
        topics = self._publishers.wanted()
        watch = settings.monitor_rate > 0 and begin - self._watched >= 1 / settings.monitor_rate
        if not topics and not watch:
            self._statistics.unwanted()
            return None
        image = self._convert(frame, settings)
        size = image.shape[0], image.shape[1]
        self._follow_stamps(frame)
        self._follow_size(size)
        info = self._source.camera_info(frame.message.header.stamp)
        camera = self._find_camera(frame, info, size, settings)
        if watch:
            self._watched = begin
        seconds = time.monotonic() - begin
        return Prepared(frame, image, info, camera, tuple(topics), watch, settings, seconds)

    def _infer(self, prepared: Prepared) -> Inferred:
        available = self._predictor.available_maps
        needed = needed_maps(raw_topics(prepared.topics), available)
        if prepared.watch:
            needed |= (WATCHED | DOMAIN) & available
        if _limits_depth(prepared.settings, needed):
            needed |= {"depth_variance"} & available
        if not needed:
            return Inferred(prepared, Prediction(), 0.0)
        needed |= DOMAIN & available
        self._predictor.min_confidence = prepared.settings.min_confidence
        begin = time.monotonic()
        prediction = self._predictor.predict(
            prepared.image,
            prepared.camera.intrinsics if prepared.camera else None,
            maps=needed,
            output_size=prepared.published_size,
        )
        seconds = time.monotonic() - begin
        self._remember_size(prepared.size)
        return Inferred(prepared, prediction, seconds)

    def _publish(self, inferred: Inferred) -> None:
        begin = time.monotonic()
        prepared, prediction = inferred.prepared, inferred.prediction
        settings = prepared.settings
        style = settings.style(self._predictor.spec.depth_range[1])
        label_set = self._predictor.label_set
        maps = Maps(prediction, prepared.image, label_set, style)
        # Before the most uncertain depth is taken out: the alarm is about just that.
        means = {name: _mean(maps, name) for name in ("semantic_uncertainty", "depth_std")}
        if settings.depth_std_limit < math.inf and prediction.depth_variance is not None:
            limited = prediction.with_depth_std_up_to(settings.depth_std_limit)
            maps = Maps(limited, prepared.image, label_set, style)
        for topic in sorted(prepared.topics, key=_message_size):
            try:
                message = self._render(topic, maps, prepared)
            except InputError as error:  # the other topics are still of use
                self._report(error.kind, str(error))
                continue
            if message is not None:
                self._publishers.publish(topic, message)
        end = time.monotonic()
        self._statistics.answered(
            Answer(
                time=end,
                latency=end - prepared.frame.received,
                inference=inferred.seconds,
                overhead=prepared.seconds + end - begin,
                semantic_uncertainty=means["semantic_uncertainty"],
                depth_std=means["depth_std"],
                domain_distance=prediction.domain_distance,
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
            from emu_perception.inference.engines.cache import remember_image_size

            self._remembered = size
            remember_image_size(self._predictor.path, size)

    def _find_camera(
        self, frame: Frame, info: Any | None, size: tuple[int, int], settings: Settings
    ) -> CameraModel | None:
        """The image's camera; None, after a report where one was published, if it is unknown."""
        if info is None:
            return self._assumed_camera(size, settings.focal_length)
        frame_id, topic = frame.message.header.frame_id, self._source.image_topic
        try:
            return self._cameras.find(info, size, frame_id, topic, settings.rectification)
        except InputError as error:
            self._report(error.kind, str(error))
            return None

    def _assumed_camera(self, size: tuple[int, int], focal_length: float) -> CameraModel | None:
        """The camera by the parameter `focal_length`, kept for its rays; None without one."""
        if focal_length == 0:
            return None
        key = focal_length, size
        if self._assumed is None or self._assumed[0] != key:
            self._assumed = key, assumed_camera(focal_length, size)
        return self._assumed[1]

    def _render(self, topic: str, maps: Maps, prepared: Prepared) -> Any | None:
        """The message for a topic; None where it needs a camera that is not known."""
        header = prepared.frame.message.header
        output = image_output(topic)
        if output is not None:
            return image_message(header, output.encoding, maps.render(topic))
        if topic in COMPRESSED_OUTPUTS:
            pixels = maps.render(COMPRESSED_OUTPUTS[topic])
            depth_max = self._predictor.spec.depth_range[1]
            return compressed_image_message(header, *compress(topic, pixels, depth_max))
        camera, size = prepared.camera, prepared.published_size
        without_info = topic == CAMERA_INFO_TOPIC and prepared.info is None
        if camera is None or without_info:
            if prepared.info is None:
                remedy = "" if without_info else "; without one, set the parameter focal_length"
                self._report(
                    BadInput.CAMERA_INFO,
                    f"{topic} needs camera_info, and none has come on "
                    f"{self._source.camera_info_topic}{remedy}",
                )
            return None
        if topic == CAMERA_INFO_TOPIC:
            return camera_info_message(prepared.info, header, prepared.size, size)
        cloud = point_cloud(maps, camera.rays(*size))
        settings = prepared.settings
        if settings.limits_height:
            plane = self._heights.find(header, settings)
            limit_height(cloud, plane, settings.min_height, settings.max_height)
        return point_cloud_message(header, cloud)


def _limits_depth(settings: Settings, needed: frozenset[str]) -> bool:
    return settings.depth_std_limit < math.inf and bool(needed & DEPTH_MAPS)


def _message_size(topic: str) -> int:
    """Bytes per pixel, to publish the largest messages last."""
    if topic == CAMERA_INFO_TOPIC:
        return 0
    if topic in COMPRESSED_OUTPUTS:  # compressing takes time: after all raw images
        return max(BYTES_PER_PIXEL.values()) + 1
    output = image_output(topic)
    return POINT_BYTES if output is None else BYTES_PER_PIXEL[output.encoding]


def _mean(maps: Maps, name: str) -> float | None:
    source = {"depth_std": "depth_variance", "semantic_uncertainty": "semantic_entropy"}[name]
    if getattr(maps.prediction, source) is None:
        return None
    values = getattr(maps, name)[::MEAN_STRIDE, ::MEAN_STRIDE]
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None
