"""The frames of a recording: images, their ground truth, and maps that were published for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from emu_perception.camera import Intrinsics
from emu_perception.labels import LabelSet
from emu_perception.messages.images import map_values
from emu_perception.messages.topics import LABEL_INFO_TOPIC, image_outputs
from emu_perception.recordings.image_messages import header_stamp_ns
from emu_perception.recordings.matching import Matched, StampMatcher
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.published import MAP_TOPICS
from emu_perception.recordings.reader import (
    IMAGE,
    LABEL_INFO,
    BagError,
    BagMessage,
    BagReader,
)
from emu_perception.recordings.recording import (
    ImageDecoder,
    RecordedImage,
    count_damage,
    messages,
)
from emu_perception.recordings.scoring import RecordedFrame
from emu_perception.recordings.synchronised import published_prediction, truth_of
from emu_perception.recordings.truth import (
    MILLIMETRES,
    TruthFolder,
    TruthReader,
    depth_of,
    labels_of,
)

CAMERA = "image"
"""Name of the camera's images in the matcher."""


class PublishedMaps:
    """The topics of a recording with a model's maps.

    Args:
        bag: an open recording.
        namespace: of the topics.
        label_set: classes of the model that they are said to be of; None for one without.

    Raises:
        BagError: it has no maps, or its class names are others.
    """

    def __init__(self, bag: BagReader, namespace: str, label_set: LabelSet | None) -> None:
        prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
        found = {t.name: t for t in bag.topics if t.msgtype == IMAGE and t.count}
        self.topics = {prefix + name: name for name in MAP_TOPICS if prefix + name in found}
        """Full name -> relative name."""
        self.outputs = {prefix + name for name in image_outputs()}
        """Full names of all image topics of a model."""
        self.classes = len(label_set) if label_set else 0
        if not self.topics:
            raise BagError(
                f"{bag.path} holds no published maps such as {prefix}semantic/labels; "
                "`emu bag annotate` adds them, the namespace is that of the node"
            )
        self.count = max(found[name].count for name in self.topics)
        info = prefix + LABEL_INFO_TOPIC
        if label_set and any(t.name == info and t.msgtype == LABEL_INFO for t in bag.topics):
            for message in bag.messages([info]):
                names = [c.class_name for c in bag.decode(message).class_map]
                if names != list(label_set.names):
                    raise BagError(
                        f"{bag.path}: the classes on {info} are {', '.join(names)}, those of the "
                        f"model {', '.join(label_set.names)}: name the model that made the maps"
                    )


class FrameReader:
    """Reads frames in the order of their recording; what cannot be read is counted and left out.

    Args:
        bag: an open recording.
        problems: counts what is wrong.
        topic: with the images; None for the only one.
        folders: files of ground truth.
        truth_topics: `labels` and `depth` -> topics of ground truth, matched by stamp.
        depth_scale: metres per unit of 16-bit depth on its topic.
        maps: published maps to score; without them a frame is an image.
        camera: intrinsics for a width and height, in place of the recording's camera_info.

    Raises:
        BagError: the bag has no such topic.
        ValueError: files are to be matched by index, and there are no images to count.
    """

    def __init__(
        self,
        bag: BagReader,
        problems: Problems,
        *,
        topic: str | None = None,
        folders: Sequence[TruthFolder] = (),
        truth_topics: Mapping[str, str] | None = None,
        depth_scale: float = MILLIMETRES,
        maps: PublishedMaps | None = None,
        camera: Callable[[int, int], Intrinsics | None] | None = None,
    ) -> None:
        self._bag, self._problems, self._maps = bag, problems, maps
        self._depth_scale = depth_scale
        self._truth_topics = {name: kind for kind, name in (truth_topics or {}).items()}
        self._folders = TruthReader(folders, problems)
        excluded = {*self._truth_topics, *(maps.outputs if maps else ())}
        self._decoder: ImageDecoder | None = None
        if maps is None or topic is not None or bag.image_topics(excluded):
            self._decoder = ImageDecoder(bag, topic, problems, excluded, camera)
        else:
            count_damage(bag, problems)
            if any(folder.match == "index" for folder in folders):
                raise ValueError(
                    f"{bag.path} holds no images to count: match the files by stamp instead"
                )
        sources = {*self._truth_topics.values(), *(maps.topics.values() if maps else ())}
        self._sources = sources | ({CAMERA} if self._decoder else set())
        self._matcher = StampMatcher(lambda: self._sources)

    @property
    def source(self) -> str:
        """Description of the scored images or maps."""
        if self._maps is not None:
            return f"{self._maps.count} on {', '.join(self._maps.topics)}"
        assert self._decoder is not None
        return f"{self._decoder.source.count} on {self._decoder.source.name}"

    @property
    def count(self) -> int:
        """How many frames there are, those that cannot be read included."""
        if self._maps is not None:
            return self._maps.count
        assert self._decoder is not None
        return self._decoder.source.count

    def frames(self) -> Iterator[RecordedFrame]:
        """All frames that can be scored."""
        topics = [*self._truth_topics, *(self._maps.topics if self._maps else ())]
        if self._decoder is not None:
            topics += self._decoder.topics
        for message in messages(self._bag, topics, self._problems):
            for matched in self._take(message):
                yield from self._frame(matched)
        for matched in self._matcher.finish():
            yield from self._frame(matched)
        self._folders.finish(self._decoder.taken if self._decoder else 0)

    def _take(self, message: BagMessage) -> Iterator[Matched]:
        kind = self._truth_topics.get(message.topic)
        name = self._maps.topics.get(message.topic) if self._maps else None
        if kind is None and name is None:
            assert self._decoder is not None
            recorded = self._decoder.take(message)
            if recorded is not None:
                yield from self._matcher.add(CAMERA, recorded.stamp_ns, recorded)
            return
        try:
            decoded = self._bag.decode(message)
            if kind is None:
                values = map_values(decoded)
            else:
                values = (
                    labels_of(decoded) if kind == "labels" else depth_of(decoded, self._depth_scale)
                )
            stamp = header_stamp_ns(message.data)
        except ValueError as error:
            what = f"unusable {kind}" if kind else "unusable map"
            self._problems.count(what, f"{message.topic} at {message.time_ns} ns: {error}")
            return
        yield from self._matcher.add(kind or str(name), stamp, values)

    def _frame(self, matched: Matched) -> Iterator[RecordedFrame]:
        """The frame of a stamp, unless there is nothing to score."""
        recorded: RecordedImage | None = matched.parts.get(CAMERA)
        prediction = None
        if self._maps is not None:
            prediction = published_prediction(
                matched, self._maps.topics.values(), self._maps.classes, self._problems
            )
            if prediction is None:
                return
            if recorded is None and self._decoder is not None:
                self._problems.count("maps without an image", f"stamp {matched.stamp_ns} ns")
            size = prediction.size
        elif recorded is None:
            for kind in matched.parts:
                self._problems.count(f"{kind} without an image", f"stamp {matched.stamp_ns} ns")
            return
        else:
            size = recorded.image.shape[0], recorded.image.shape[1]
        index = recorded.index if recorded else matched.number
        truth = truth_of(matched, self._truth_topics.values(), size, self._problems)
        if recorded is not None or self._decoder is None:
            truth |= self._folders.read(index, matched.stamp_ns, size)
        yield RecordedFrame(
            index,
            matched.stamp_ns,
            recorded.image if recorded else None,
            recorded.camera.intrinsics if recorded and recorded.camera else None,
            truth.get("labels"),
            truth.get("depth"),
            prediction,
        )
