"""Write rosbag2 recordings (mcap) that `ros2 bag play`, RViz and Foxglove read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import TypesysError
from rosbags.typesys.store import Typestore

from emu_perception.atomic import begin_folder, discard_folder, finish_folder
from emu_perception.recordings.reader import (
    STORAGE_SUFFIXES,
    BagError,
    is_bag,
    message_types,
)

_NEVER = QosTime(0x7FFFFFFF, 0xFFFFFFFF)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _NEVER,
    _NEVER,
    QosLiveliness.AUTOMATIC,
    _NEVER,
    False,
)
"""The quality of service of what is said once and holds from then on."""


STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
COMPRESSIONS = {"mcap": CompressionMode.STORAGE, "sqlite3": CompressionMode.MESSAGE}


class BagWriter:
    """A new recording, as a context manager; it is in its place once the block is left.

    Until then it is in a hidden folder next to it (`.NAME.partial/NAME`), which the next writer of
    the same name deletes. A full disk leaves neither.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        storage: Literal["mcap", "sqlite3"] = "mcap",
        compress: bool = False,
        overwrite: bool = False,
        types: Typestore | None = None,
    ) -> None:
        """Args:
            path: the rosbag2 folder to make.
            compress: pack with zstd what is stored.
            overwrite: replace a bag of that name at the end; anything else of that name is left
                alone.
            types: message types beyond the standard ones, such as another bag's.

        Raises:
            BagError: the path exists.
        """
        self.path = Path(path)
        self._overwrite = overwrite
        if not self._is_free():
            raise BagError(f"{self.path} exists already: remove it or write elsewhere")
        self._storage, self._compress = storage, compress
        self._failed = False
        self._types = types or message_types()
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        try:
            self._partial = begin_folder(self.path)
            # Version 8 is read by every ROS 2 since Humble; 9 only by Jazzy and later.
            self._writer = Writer(self._partial, version=8, storage_plugin=STORAGES[self._storage])
            if self._compress:
                self._writer.set_compression(COMPRESSIONS[self._storage], CompressionFormat.ZSTD)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise BagError(f"{self.path}: cannot write the bag: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was recorded before an error or an interrupt is worth keeping: write the index.
        with self._full_disk():
            if self._failed:
                return
            self._writer.close()
            if not self._is_free():
                raise BagError(
                    f"{self.path} was made by another program: the recording is {self._partial}"
                )
            finish_folder(self._partial, self.path, replace=self._overwrite)

    def _is_free(self) -> bool:
        """Whether the recording may take its place."""
        return not self.path.exists() or (self._overwrite and _is_nothing_but_a_bag(self.path))

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        """Delete a recording that cannot be written any further."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._failed = True
            with suppress(Exception):
                if self._writer.storage is not None:
                    self._writer.storage.abort()
            discard_folder(self._partial)
            raise BagError(
                f"{self.path}: cannot write the bag, and nothing of it is kept: {error}"
            ) from error

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        """Serialize and add a message made from `message_types()`."""
        msgtype = message.__msgtype__
        self.write_cdr(topic, msgtype, self._types.serialize_cdr(message, msgtype), time_ns)

    def write_cdr(self, topic: str, msgtype: str, data: bytes | memoryview, time_ns: int) -> None:
        """Add a message that is serialized already, as it came from the wire or another bag.

        Raises:
            BagError: the topic holds another type, the type is unknown, or the disk is full.
        """
        connection = self._connections.get(topic)
        if connection is None:
            connection = self.add_topic(topic, msgtype)
        if connection.msgtype != msgtype:
            raise BagError(f"{self.path}: {topic} holds {connection.msgtype}, got a {msgtype}")
        with self._full_disk():
            self._writer.write(connection, time_ns, data)

    def add_topic(self, topic: str, msgtype: str, *, latched: bool = False) -> Connection:
        """Declare a topic that may stay empty; others are declared by their first message.

        A latched one (transient local) is played to late subscribers too.
        """
        quality = [LATCHED] if latched else []
        try:
            connection = self._writer.add_connection(
                topic, msgtype, typestore=self._types, offered_qos_profiles=quality
            )
        except TypesysError:
            raise BagError(f"{self.path}: {topic}: unknown message type {msgtype}") from None
        self._connections[topic] = connection
        return connection

    def copy_topic(self, source: Connection, types: Typestore) -> None:
        """Declare another bag's topic: same type, definition and quality of service.

        Args:
            source: its entry in `BagReader.connections`.
            types: that bag's, for one that carries no definition.

        Raises:
            BagError: the type is unknown and has no definition, or another is on that topic.
        """
        before = self._connections.get(source.topic)
        if before is not None:
            if before.msgtype != source.msgtype:
                raise BagError(f"{source.topic} holds {before.msgtype} and {source.msgtype}")
            return
        ext = source.ext
        assert isinstance(ext, ConnectionExtRosbag2)
        known = bool(source.msgdef.data and source.digest)
        try:
            self._connections[source.topic] = self._writer.add_connection(
                source.topic,
                source.msgtype,
                typestore=types,
                msgdef=source.msgdef.data if known else None,
                rihs01=source.digest if known else None,
                serialization_format=ext.serialization_format,
                offered_qos_profiles=ext.offered_qos_profiles,
            )
        except (TypesysError, KeyError):
            raise BagError(f"{source.topic}: unknown message type {source.msgtype}") from None


def _is_nothing_but_a_bag(path: Path) -> bool:
    return (
        path.is_dir()
        and is_bag(path)
        and all(
            f.is_file() and (f.name == "metadata.yaml" or f.suffix in STORAGE_SUFFIXES)
            for f in path.iterdir()
        )
    )
