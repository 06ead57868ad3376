"""A recording with a model's outputs added, as if the node had been running when it was made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from emu_perception.camera import Intrinsics
from emu_perception.inference.batch import Request, predict_each
from emu_perception.inference.predictor import Predictor
from emu_perception.messages.topics import (
    CAMERA_INFO_TOPIC,
    LABEL_INFO_TOPIC,
    POINTS_TOPIC,
    Maps,
    Style,
    available_outputs,
    image_outputs,
    needed_maps,
    point_cloud,
)
from emu_perception.prediction import Prediction
from emu_perception.recordings.image_messages import header
from emu_perception.recordings.output_messages import (
    camera_info_message,
    image_message,
    label_info_message,
    point_cloud_message,
)
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.reader import (
    CAMERA_INFO,
    IMAGE,
    LABEL_INFO,
    POINT_CLOUD,
    BagError,
    BagMessage,
    BagReader,
)
from emu_perception.recordings.recording import (
    ImageDecoder,
    RecordedImage,
    messages,
)
from emu_perception.recordings.writer import BagWriter


def output_topics(available_maps: Collection[str]) -> dict[str, str]:
    """Every topic that the node would publish with such a model, by relative name: its type."""
    topics = dict.fromkeys(available_outputs(available_maps), IMAGE)
    if "depth" in available_maps:
        topics |= {CAMERA_INFO_TOPIC: CAMERA_INFO, POINTS_TOPIC: POINT_CLOUD}
    if "labels" in available_maps:
        topics[LABEL_INFO_TOPIC] = LABEL_INFO
    return topics


class Annotator:
    """Copies a recording and adds outputs.

    Args:
        reader: the open recording.
        writer: the new one, open when `run` is called.
        predictor: answers the images.
        problems: counts what is wrong.
        topic: with the images; None for the only one.
        only: relative names of the outputs; empty for all that the model has.
        namespace: of the outputs.
        output_scale: size of the outputs relative to the image, as the node's parameter.
        camera: returns the intrinsics for a width and height, in place of the recording's
            camera_info.

    Raises:
        BagError: no such images, or a topic of an output is in the recording already.
        ValueError: the model has no such output, or all outputs need a camera that is unknown.
    """

    def __init__(
        self,
        reader: BagReader,
        writer: BagWriter,
        predictor: Predictor,
        problems: Problems,
        *,
        topic: str | None = None,
        only: Sequence[str] = (),
        namespace: str = "",
        output_scale: float = 1.0,
        camera: Callable[[int, int], Intrinsics | None] | None = None,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._predictor, self._problems = predictor, problems
        self._decoder = ImageDecoder(reader, topic, problems, camera=camera)
        self._scale = output_scale
        self._style = Style(depth_max=predictor.spec.depth_range[1])
        known = output_topics(predictor.available_maps)
        unknown = set(only) - set(known)
        if unknown:
            raise ValueError(
                f"this model has no output {', '.join(sorted(unknown))}; it has {', '.join(known)}"
            )
        self._types = {name: known[name] for name in (only or known)}
        without = sorted({CAMERA_INFO_TOPIC, POINTS_TOPIC} & set(only))
        if without and not self._decoder.has_camera:
            raise ValueError(
                f"{' and '.join(without)} {'needs' if len(without) == 1 else 'need'} the camera, "
                f"and {reader.path} has no camera_info for {self._decoder.source.name}: give "
                "--focal-length, --fov or --intrinsics"
            )
        prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
        self._names = {name: prefix + name for name in self._types}
        taken = set(self._names.values()) & {t.name for t in reader.topics}
        if taken:
            raise BagError(
                f"{reader.path} holds {', '.join(sorted(taken))} already: give a namespace"
            )

    def run(self, progress: Callable[[int], None] = lambda done: None) -> int:
        """Copy and add; returns how many images were answered."""
        copied = self._declare()
        needed = needed_maps(self._types, self._predictor.available_maps)

        def request(item: tuple[BagMessage, RecordedImage | None]) -> Request | None:
            recorded = item[1]
            if recorded is None or not needed:
                return None
            intrinsics = recorded.camera.intrinsics if recorded.camera else None
            return Request(recorded.image, intrinsics, needed, self._size(recorded))

        decoded = ((m, self._decoder.take(m)) for m in messages(self._reader, None, self._problems))
        answered = 0
        for answer in predict_each(self._predictor, decoded, request):
            message, recorded = answer.item
            if not answered and recorded is not None:
                self._write_label_info(message.time_ns)
            if message.topic in copied:
                self._writer.write_cdr(
                    message.topic, message.msgtype, message.data, message.time_ns
                )
            if recorded is not None:
                self._write_outputs(message.time_ns, recorded, answer.prediction)
                answered += 1
                progress(self._decoder.taken)
        return answered

    def _declare(self) -> set[str]:
        """Announce all topics; returns those of the original that can be copied."""
        copied = set()
        for connection in self._reader.connections:
            try:
                self._writer.copy_topic(connection, self._reader.types)
                copied.add(connection.topic)
            except BagError as error:
                self._problems.count("topic left out", str(error))
        for name, msgtype in self._types.items():
            self._writer.add_topic(self._names[name], msgtype, latched=name == LABEL_INFO_TOPIC)
        return copied

    def _size(self, recorded: RecordedImage) -> tuple[int, int]:
        height, width = recorded.image.shape[:2]
        return max(1, round(height * self._scale)), max(1, round(width * self._scale))

    def _write_label_info(self, time_ns: int) -> None:
        label_set = self._predictor.label_set
        if LABEL_INFO_TOPIC in self._types and label_set is not None:
            message = label_info_message(header(time_ns, ""), label_set)
            self._writer.write(self._names[LABEL_INFO_TOPIC], message, time_ns)

    def _write_outputs(self, time_ns: int, recorded: RecordedImage, prediction: Prediction) -> None:
        maps = Maps(prediction, recorded.image, self._predictor.label_set, self._style)
        for name, full_name in self._names.items():
            message = self._render(name, maps, recorded)
            if message is not None:
                self._writer.write(full_name, message, time_ns)

    def _render(self, name: str, maps: Maps, recorded: RecordedImage) -> Any | None:
        """The message for an output; None for one that comes once or needs an unknown camera."""
        output = image_outputs().get(name)
        if output is not None:
            return image_message(recorded.header, output.encoding, output.render(maps))
        if name == LABEL_INFO_TOPIC or recorded.camera is None:
            return None
        size = self._size(recorded)
        if name == CAMERA_INFO_TOPIC:
            image_size = recorded.image.shape[0], recorded.image.shape[1]
            return camera_info_message(recorded.camera_info, recorded.header, image_size, size)
        return point_cloud_message(recorded.header, point_cloud(maps, recorded.camera.rays(*size)))
