"""Recovery of recordings that are truncated or have lost their metadata.

The messages are read one after the other, in the order in which they were written, without an
index: up to the first byte that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
    Qos,
)
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys import get_types_from_idl, get_types_from_msg
from rosbags.typesys.store import Typestore

from emu_perception.recordings.limits import LimitError, check_mcap, check_sqlite
from emu_perception.recordings.salvage import Damage, Source, is_short, read_messages

_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
}


class RescuedRecording:
    """The storage files of a recording, in place of rosbags' AnyReader as `BagReader` uses it.

    Args:
        files: mcap and sqlite3 files, in the order of their recording.
        default_types: for what the files do not define.

    Attributes:
        damage: what is wrong with the files, in words.
    """

    def __init__(self, files: Sequence[Path], default_types: Typestore) -> None:
        self._files = files
        self.typestore = default_types
        self.damage: list[str] = []
        self.message_count = 0
        self.start_time = 0
        self._last_time = 0
        counts: dict[Source, int] = {}
        for file in files:
            before = self.message_count
            try:
                for source, time_ns, data in read_messages(file):
                    counts.setdefault(source, 0)
                    if data is not None:
                        counts[source] += 1
                        first = not self.message_count
                        self.start_time = time_ns if first else min(self.start_time, time_ns)
                        self._last_time = max(self._last_time, time_ns)
                        self.message_count += 1
            except Damage as error:
                read = self.message_count - before
                self.damage.append(f"{file.name} is damaged after {read} messages: {error}")
        self.connections = [
            Connection(
                number,
                source.topic,
                source.msgtype,
                MessageDefinition(
                    _FORMATS.get(source.encoding, MessageDefinitionFormat.NONE), source.definition
                ),
                source.digest,
                count,
                ConnectionExtRosbag2(source.serialization, _qos(source.qos)),
                None,
            )
            for number, (source, count) in enumerate(counts.items(), 1)
        ]
        self._by_source = dict(zip(counts, self.connections))

    @property
    def duration(self) -> int:
        """Nanoseconds from the first message to after the last."""
        return self._last_time - self.start_time + 1 if self.message_count else 0

    def messages(
        self, connections: Iterable[Connection], *, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of some connections, up to the damage in each file."""
        wanted = {connection.id for connection in connections}
        for file in self._files:
            try:
                for source, time_ns, data in read_messages(file):
                    connection = self._by_source[source]
                    if data is None or connection.id not in wanted:
                        continue
                    if stop is None or time_ns < stop:
                        yield connection, time_ns, data
            except Damage:  # counted when the file was first read
                continue

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """A message with its fields as attributes."""
        return self.typestore.deserialize_cdr(data, msgtype)

    def close(self) -> None:
        """Nothing is open between two readings."""


def needs_rescue(file: Path) -> str | None:
    """Reason why a file must be read without its index; None for an intact file."""
    try:
        (check_sqlite if file.suffix == ".db3" else check_mcap)(file)
    except LimitError as error:
        return f"{file.name}: {error}"
    if file.suffix != ".db3":
        return None  # an mcap file has a mark of completeness at its end
    if is_short(file):
        return f"{file.name} is shorter than its header declares"
    log = file.with_name(f"{file.name}-wal")
    if log.is_file() and log.stat().st_size:
        return f"{file.name} was not closed: its last messages are in {log.name}"
    return None


def in_order(files: Iterable[Path]) -> list[Path]:
    """Files by the numbers in their names: drive_2 before drive_10."""

    def key(file: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]

    return sorted(files, key=key)


def register_definitions(types: Typestore, connections: Iterable[Connection]) -> list[str]:
    """Make the types known that a recording defines and `types` lacks.

    Returns:
        The names of those whose definitions cannot be used.
    """
    unusable = []
    for connection in connections:
        msgtype, definition = connection.msgtype, connection.msgdef
        if msgtype in types.fielddefs or definition.format == MessageDefinitionFormat.NONE:
            continue
        try:
            if definition.format == MessageDefinitionFormat.MSG:
                found = get_types_from_msg(definition.data, msgtype)
            else:
                found = get_types_from_idl(definition.data)
            types.register({n: d for n, d in found.items() if n not in types.fielddefs})
        except Exception:  # a definition may be any text
            unusable.append(msgtype)
    return unusable


def _qos(text: str) -> list[Qos]:
    try:
        return parse_qos(text)
    except (ReaderError, KeyError, TypeError, ValueError):
        return []
