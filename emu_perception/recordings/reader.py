"""Read rosbag2 recordings: mcap and sqlite3, plain and compressed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from emu_perception.recordings.limits import bound_rosbags, check_index, check_metadata
from emu_perception.recordings.rescue import (
    RescuedRecording,
    in_order,
    needs_rescue,
    register_definitions,
)
from emu_perception.text import one_line

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
LABEL_INFO = "vision_msgs/msg/LabelInfo"

LONGEST_REASON = 200
"""Characters of what a library found wrong, of which a hostile file decides the length."""
STORAGE_SUFFIXES = (".mcap", ".db3")


class BagError(ValueError):
    """A bag that cannot be read or written; the message names it and what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))  # it may quote a topic, megabytes long


def standard_types() -> Typestore:
    """The standard ROS 2 messages and LabelInfo, in a store that may be added to."""
    types = get_typestore(Stores.ROS2_JAZZY)
    label_info = "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
    types.register(get_types_from_msg(label_info, LABEL_INFO))
    vision_class = "uint16 class_id\nstring class_name\n"
    types.register(get_types_from_msg(vision_class, "vision_msgs/msg/VisionClass"))
    return types


@cache
def message_types() -> Typestore:
    """The standard ROS 2 messages and LabelInfo, for bags without definitions and for writing."""
    return standard_types()


def is_bag(path: Path) -> bool:
    """Whether a path looks like a rosbag2: its folder or one of its storage files."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(
            file.suffix in STORAGE_SUFFIXES for file in path.iterdir()
        )
    return path.suffix in STORAGE_SUFFIXES


@dataclass(frozen=True)
class BagTopic:
    """One topic of a recording."""

    name: str
    msgtype: str
    count: int


@dataclass(frozen=True)
class BagMessage:
    """One recorded message, still serialized."""

    topic: str
    msgtype: str
    time_ns: int
    """When it was recorded, in nanoseconds."""
    data: bytes
    """CDR, as it goes over the wire."""


class BagReader:
    """One recording, as a context manager.

    A recording that was cut off, or has lost its metadata, is read up to where it is damaged;
    `damage` lists what was found.

    >>> with BagReader("drive") as bag:
    ...     for message in bag.messages([bag.image_topic().name]):
    ...         image = rgb(bag.decode(message))
    """

    def __init__(self, path: str | Path) -> None:
        """Args:
            path: a rosbag2 folder, or a single `.mcap` or `.db3` file.

        Raises:
            BagError: there is no such bag.
        """
        self.path = Path(path)
        self._reader: AnyReader | RescuedRecording | None = None
        self.damage: tuple[str, ...] = ()
        if not self.path.exists():
            raise BagError(f"{self.path}: no such bag")
        if self.path.is_file() and self.path.suffix not in STORAGE_SUFFIXES:
            raise BagError(
                f"{self.path}: not a rosbag2; expected a folder with metadata.yaml, or a file "
                f"that ends in {' or '.join(STORAGE_SUFFIXES)}"
            )
        if not is_bag(self.path):
            raise BagError(
                f"{self.path}: expected a rosbag2 folder with metadata.yaml and .mcap or .db3 files"
            )

    def __enter__(self) -> BagReader:
        files = self._files()
        reasons = [reason for file in files if (reason := needs_rescue(file))]
        if self.path.is_dir() and not (self.path / "metadata.yaml").is_file():
            reasons.append("metadata.yaml is missing")
        if self.path.is_dir() and not reasons:
            reasons += check_metadata(self.path / "metadata.yaml")
        if not reasons:
            bound_rosbags()
            reader = AnyReader([self.path], default_typestore=message_types())
            try:
                reader.open()
                _check(reader, sum(file.stat().st_size for file in files))
            except Exception as error:  # a damaged file surfaces as almost any exception
                reasons.append(_reason(error))
                if reader.stack is not None:
                    reader.close()
            else:
                # Standard types that the bag uses and doesn't define.
                known, standard = reader.typestore, message_types().fielddefs
                known.register({n: d for n, d in standard.items() if n not in known.fielddefs})
                self._reader = reader
                return self
        rescued = RescuedRecording(files, standard_types())
        self.damage = (*reasons, *rescued.damage)
        if not rescued.connections:
            raise BagError(
                f"{self.path}: the bag is damaged, and nothing of it can be read "
                f"({'; '.join(self.damage)})"
            )
        unusable = register_definitions(rescued.typestore, rescued.connections)
        self.damage += tuple(f"the definition of {name} cannot be used" for name in unusable)
        self._reader = rescued
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; done on leaving the `with` block."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        return in_order(f for f in self.path.iterdir() if f.suffix in STORAGE_SUFFIXES)

    def _open(self) -> AnyReader | RescuedRecording:
        if self._reader is None:
            raise RuntimeError(f"{self.path} is not open: use `with BagReader(path) as bag`")
        return self._reader

    @property
    def topics(self) -> list[BagTopic]:
        """All topics, by name."""
        found: dict[str, list[Connection]] = {}
        for connection in self._open().connections:
            found.setdefault(connection.topic, []).append(connection)
        return [
            BagTopic(
                name,
                connections[0].msgtype
                if len({c.msgtype for c in connections}) == 1
                else "(several types)",
                sum(c.msgcount for c in connections),
            )
            for name, connections in sorted(found.items())
        ]

    @property
    def connections(self) -> list[Connection]:
        """Who recorded what: topic, type with its definition, quality of service."""
        return list(self._open().connections)

    @property
    def types(self) -> Typestore:
        """The message types that the bag defines."""
        return self._open().typestore

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        reader = self._open()
        return max(0, reader.duration - 1) * 1e-9 if reader.message_count else 0.0

    def image_topics(self, excluded: Collection[str] = ()) -> list[BagTopic]:
        """Topics with images, but those of another kind, such as label maps.

        Of a raw topic and its `/compressed` sibling, the raw one.
        """
        found = [
            t
            for t in self.topics
            if t.msgtype in (IMAGE, COMPRESSED_IMAGE) and t.count and t.name not in excluded
        ]
        names = {t.name for t in found}
        return [t for t in found if t.name.removesuffix("/compressed") not in names - {t.name}]

    def image_topic(self, name: str | None = None, excluded: Collection[str] = ()) -> BagTopic:
        """The topic with the camera's images: the named one, or the only one of `image_topics`.

        Raises:
            BagError: there is none, or it is ambiguous; the message lists the candidates.
        """
        candidates = [t for t in self.topics if t.msgtype in (IMAGE, COMPRESSED_IMAGE)]
        listing = ", ".join(f"{t.name} ({t.count})" for t in candidates) or "none"
        if name is not None:
            for topic in candidates:
                if topic.name == name:
                    return topic
            raise BagError(f"{self.path}: no images on '{name}'; topics with images: {listing}")
        found = self.image_topics(excluded)
        if not found:
            there = ", ".join(f"{t.name} [{t.msgtype}]" for t in self.topics) or "nothing"
            raise BagError(f"{self.path}: expected {IMAGE} or {COMPRESSED_IMAGE}, found {there}")
        if len(found) > 1:
            raise BagError(f"{self.path}: several topics hold images, name one of {listing}")
        return found[0]

    def camera_info_topic(self, image_topic: str) -> BagTopic | None:
        """The CameraInfo in the namespace of an image topic, else the only one, else None."""
        candidates = [t for t in self.topics if t.msgtype == CAMERA_INFO and t.count]
        namespace = image_topic.removesuffix("/compressed").rpartition("/")[0]
        for topic in candidates:
            if topic.name == f"{namespace}/camera_info":
                return topic
        return candidates[0] if len(candidates) == 1 else None

    def messages(
        self, topics: Iterable[str] | None = None, *, seconds: float = math.inf
    ) -> Iterator[BagMessage]:
        """Messages in the order of their recording.

        Args:
            topics: names; None for all.
            seconds: of the recording, from its start.

        Raises:
            BagError: a topic is not in the bag, or the file is damaged where it was read.
        """
        reader = self._open()
        connections: list[Connection] = list(reader.connections)
        if topics is not None:
            wanted = set(topics)
            unknown = wanted - {c.topic for c in connections}
            if unknown:
                there = ", ".join(sorted({c.topic for c in connections}))
                raise BagError(
                    f"{self.path}: no topic {', '.join(sorted(unknown))}; it has {there}"
                )
            connections = [c for c in connections if c.topic in wanted]
        if not connections:
            return
        end = reader.start_time + int(seconds * 1e9) if math.isfinite(seconds) else None
        messages = reader.messages(connections, stop=end)
        while True:
            try:
                connection, time_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise BagError(f"{self.path}: the bag is damaged: {_reason(error)}") from error
            if not isinstance(data, bytes | memoryview) or not isinstance(time_ns, int):
                raise BagError(f"{self.path}: the bag is damaged: a message without data")
            yield BagMessage(connection.topic, connection.msgtype, time_ns, data)

    def decode(self, message: BagMessage) -> Any:
        """The message with its fields as attributes; arrays are NumPy's.

        Raises:
            BagError: the bytes are no message of the recorded type.
        """
        reader = self._open()
        standard = message_types()
        try:
            # A recording may define a standard type in any way: it is read as what it is.
            if message.msgtype in standard.fielddefs:
                return standard.deserialize_cdr(message.data, message.msgtype)
            return reader.deserialize(message.data, message.msgtype)
        except Exception as error:
            raise BagError(
                f"{self.path}: the message at {message.time_ns} ns on {message.topic} is no "
                f"{message.msgtype}: {error or type(error).__name__}"
            ) from error


def _check(reader: AnyReader, packed: int) -> None:
    """ValueError for what rosbags takes and nobody can read: see `limits`."""
    for each in reader.readers:
        assert isinstance(each, Reader)  # rosbag1 files are no bags here
        for storage in getattr(each.storage, "storages", [each.storage]):
            check_index(storage, packed)
    for connection in reader.connections:
        if not isinstance(connection.topic, str) or not isinstance(connection.msgtype, str):
            raise BagError("a topic has no name or no type")
    for number in (reader.message_count, reader.start_time, reader.end_time):
        if not isinstance(number, int):
            raise BagError(f"its metadata count {number!r:.40}, expected whole numbers")


def _reason(error: Exception) -> str:
    return one_line(str(error), LONGEST_REASON).rstrip(".") or type(error).__name__
