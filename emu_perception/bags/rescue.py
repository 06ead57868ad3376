"""What is left of a recording that was cut off, or that has lost its metadata.

The messages are read one after the other, in the order in which they were written, without an
index: up to the first byte that is missing.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import apsw
import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Message, Schema
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

MAGIC = b"\x89MCAP0\r\n"
_ZSTD = b"\x28\xb5\x2f\xfd"
_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
}


class Damage(ValueError):
    """The end of what can be read of a file; the message says why."""


@dataclass(frozen=True)
class _Source:
    """Who wrote a message."""

    topic: str
    msgtype: str
    encoding: str = ""
    """Of the definition."""
    definition: str = ""
    digest: str = ""
    serialization: str = "cdr"
    qos: str = ""


_Message = tuple[_Source, int, bytes]


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
        counts: dict[_Source, int] = {}
        for file in files:
            before = self.message_count
            try:
                for source, time_ns, data in _read(file):
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
                for source, time_ns, data in _read(file):
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
    """What only a reading without an index finds in a file; None for a file in order."""
    if file.suffix != ".db3":
        return None  # an mcap file says at its end that it is whole
    if _is_short(file):
        return f"{file.name} is shorter than it says"
    log = file.with_name(f"{file.name}-wal")
    if log.is_file() and log.stat().st_size:
        return f"{file.name} was not closed: its last messages are in {log.name}"
    return None


def _is_short(file: Path) -> bool:
    """Whether an sqlite3 file has fewer pages than its header says."""
    with file.open("rb") as stream:
        head = stream.read(32)
    if len(head) < 32:
        return True
    return file.stat().st_size < _page_size(file) * struct.unpack_from(">I", head, 28)[0]


def _page_size(file: Path) -> int:
    with file.open("rb") as stream:
        head = stream.read(18)
    page = struct.unpack_from(">H", head, 16)[0] if len(head) == 18 else 4096
    return 65536 if page == 1 else max(page, 512)


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


def _read(file: Path) -> Iterator[tuple[_Source, int, bytes | None]]:
    """Messages, and each source once before its messages, with None in place of data."""
    known: set[_Source] = set()
    read = _read_mcap if file.suffix == ".mcap" else _read_sqlite
    for source, time_ns, data in read(file):
        if source not in known:
            known.add(source)
            yield source, time_ns, None
        yield source, time_ns, _unpacked(data)


def _unpacked(data: bytes) -> bytes:
    # Serialized messages begin with 0, then 0 to 11 (encapsulation): this is no such beginning.
    if not data.startswith(_ZSTD):
        return data
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        unpacked = unpacker.decompress(data)
    except zstandard.ZstdError as error:
        raise Damage(f"a packed message cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise Damage("a packed message has lost its end")
    return unpacked


def _read_mcap(file: Path) -> Iterator[_Message]:
    schemas: dict[int, Schema] = {}
    sources: dict[int, _Source] = {}
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise Damage("it does not begin as an mcap file does")
        for opcode, content in _records(stream, file.stat().st_size):
            fields = ReadDataStream(io.BytesIO(content))
            try:
                if opcode == Opcode.SCHEMA:
                    schema = Schema.read(fields)
                    schemas[schema.id] = schema
                elif opcode == Opcode.CHANNEL:
                    channel = Channel.read(fields)
                    sources[channel.id] = _source(channel, schemas.get(channel.schema_id))
                elif opcode == Opcode.MESSAGE:
                    message = Message.read(fields, len(content))
                    if message.channel_id in sources:
                        yield sources[message.channel_id], message.log_time, message.data
            except (ValueError, struct.error, EOFError) as error:
                raise Damage(f"a record cannot be read: {error}") from error


def _source(channel: Channel, schema: Schema | None) -> _Source:
    return _Source(
        channel.topic,
        schema.name if schema else "",
        schema.encoding if schema else "",
        schema.data.decode("utf-8", errors="replace") if schema else "",
        channel.metadata.get("topic_type_hash", ""),
        channel.message_encoding,
        channel.metadata.get("offered_qos_profiles", ""),
    )


def _records(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Opcodes and contents, those in chunks too, until the data end or are cut off."""
    while True:
        head = stream.read(9)
        if len(head) < 9:
            raise Damage("it ends in the middle of the recording")
        opcode, length = struct.unpack("<BQ", head)
        content = stream.read(min(length, size))
        if opcode == Opcode.CHUNK:
            inside = io.BytesIO(_chunk(content))
            try:
                yield from _records(inside, len(inside.getbuffer()))
            except Damage:
                # A chunk has no end of its own: whole records up to its length are in order.
                if len(content) < length or inside.tell() < len(inside.getbuffer()):
                    raise
        elif len(content) < length:
            raise Damage("it ends in the middle of a message")
        elif opcode == Opcode.DATA_END:
            return
        else:
            yield opcode, content


def _chunk(content: bytes) -> bytes:
    """The records of a chunk, unpacked as far as it is there."""
    if len(content) < 32:
        return b""
    (name_length,) = struct.unpack_from("<I", content, 28)
    compression = content[32 : 32 + name_length]
    packed = content[32 + name_length + 8 :]
    try:
        if compression == b"zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        if compression == b"lz4":
            return lz4.frame.LZ4FrameDecompressor().decompress(packed)
    except (zstandard.ZstdError, RuntimeError) as error:
        raise Damage(f"a chunk cannot be unpacked: {error}") from error
    if compression:
        raise Damage(f"a chunk is packed with {compression!r}, expected zstd or lz4")
    return packed


def _read_sqlite(file: Path) -> Iterator[_Message]:
    try:
        with closing(_open_sqlite(file)) as database:
            sources = _sqlite_sources(database)
            rows = database.execute("SELECT topic_id, timestamp, data FROM messages")
            # SQLite reads a missing end of the last message as zeros.
            short = _is_short(file)
            last: _Message | None = None
            cut: apsw.Error | None = None
            while True:
                try:
                    row = next(rows, None)
                except apsw.Error as error:
                    cut, row = error, None
                if last is not None and not (row is None and short and last[2].endswith(b"\0")):
                    yield last
                if row is None:
                    break
                topic, time_ns, data = row
                last = (sources[topic], time_ns, data) if topic in sources else None
            if cut is not None:
                raise cut
    except apsw.Error as error:
        raise Damage(str(error)) from error


class _WholePages(apsw.VFS):
    """Files without the page that is there only in part: SQLite would read its rest as zeros."""

    def __init__(self, page: int) -> None:
        self.name = f"emu_whole_pages_{page}"
        self._page = page
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        page = self._page

        class File(apsw.VFSFile):
            def xFileSize(self) -> int:
                return super().xFileSize() // page * page

        return File("", name, flags)


def _open_sqlite(file: Path) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    # With the log of an interrupted recording, unless the folder cannot be written to.
    for options in ("mode=ro", "immutable=1"):
        view = _WholePages(_page_size(file)) if _is_short(file) else None
        name = f"{file.absolute().as_uri()}?{options}"
        try:
            database = apsw.Connection(name, flags, view.name if view else None)
            # Without this a file that is shorter than it says is refused as a whole.
            database.execute("PRAGMA writable_schema = ON")
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
            return database
        except apsw.Error:
            if options == "immutable=1":
                raise
    raise AssertionError


def _sqlite_sources(database: apsw.Connection) -> dict[int, _Source]:
    columns = {row[1] for row in database.execute("PRAGMA table_info(topics)")}
    wanted = ["id", "name", "type", "serialization_format"]
    optional = ["offered_qos_profiles", "type_description_hash"]
    chosen = ", ".join([*wanted, *(c if c in columns else "''" for c in optional)])
    definitions = {}
    if database.execute("PRAGMA table_info(message_definitions)").fetchall():
        definitions = {
            name: (encoding, text)
            for name, encoding, text in database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
        }
    return {
        number: _Source(topic, msgtype, *definitions.get(msgtype, ("", "")), digest, form, qos)
        for number, topic, msgtype, form, qos, digest in database.execute(
            f"SELECT {chosen} FROM topics"
        )
    }
