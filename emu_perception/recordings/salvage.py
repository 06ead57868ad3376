"""The messages of a storage file one after the other, without an index, up to any damage."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import apsw
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Message, Schema

from emu_perception.recordings.limits import (
    MAX_UNPACKED,
    LimitError,
    check_tables,
    max_total,
    unpack_lz4,
    unpack_zstd,
)

_READ = {Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK, Opcode.DATA_END}
MAGIC = b"\x89MCAP0\r\n"
_ZSTD = b"\x28\xb5\x2f\xfd"


class Damage(ValueError):
    """The end of what can be read of a file; the message states why."""


@dataclass(frozen=True)
class Source:
    """Who wrote a message."""

    topic: str
    msgtype: str
    encoding: str = ""
    """Encoding of the definition."""
    definition: str = ""
    digest: str = ""
    serialization: str = "cdr"
    qos: str = ""


_Message = tuple[Source, int, bytes]


def read_messages(file: Path) -> Iterator[tuple[Source, int, bytes | None]]:
    """Messages in the order in which they were written.

    Each source comes once before its messages, with None in place of data.

    Raises:
        Damage: the file ends too early, or cannot be read any further.
    """
    known: set[Source] = set()
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
    try:
        unpacked = unpack_zstd(data)
        whole = zstandard.frame_content_size(data) in (-1, len(unpacked))
    except (LimitError, zstandard.ZstdError) as error:
        raise Damage(f"a packed message cannot be unpacked: {error}") from error
    if not whole:
        raise Damage("a packed message has lost its end")
    return unpacked


def _read_mcap(file: Path) -> Iterator[_Message]:
    schemas: dict[int, Schema] = {}
    sources: dict[int, Source] = {}
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise Damage("it does not begin as an mcap file does")
        size = file.stat().st_size
        for opcode, content in _records(stream, size, max_total(size)):
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
            except (McapError, ValueError, struct.error) as error:
                raise Damage(f"a record cannot be read: {error}") from error


def _source(channel: Channel, schema: Schema | None) -> Source:
    return Source(
        channel.topic,
        schema.name if schema else "",
        schema.encoding if schema else "",
        schema.data.decode("utf-8", errors="replace") if schema else "",
        channel.metadata.get("topic_type_hash", ""),
        channel.message_encoding,
        channel.metadata.get("offered_qos_profiles", ""),
    )


def _records(stream: BinaryIO, size: int, left: int) -> Iterator[tuple[int, bytes]]:
    """Opcodes and contents, those in chunks too, until the data end or are cut off.

    Args:
        stream: at the first record.
        size: of the stream in bytes.
        left: bytes that its chunks may unpack to; 0 in a chunk, which holds no others.
    """
    while True:
        head = stream.read(9)
        if len(head) < 9:
            raise Damage("it ends in the middle of the recording")
        opcode, length = struct.unpack("<BQ", head)
        if length > MAX_UNPACKED and opcode in _READ:
            raise Damage(f"a record declares {length} bytes, at most {MAX_UNPACKED} are read")
        if opcode == Opcode.CHUNK and not left:
            raise Damage("a chunk holds another chunk")
        if opcode not in _READ:
            if not left or not opcode:
                raise Damage(f"it holds a record of the kind {opcode} where none is expected")
            if stream.tell() + length > size:
                raise Damage("it ends in the middle of a record")
            stream.seek(length, io.SEEK_CUR)
            continue
        content = stream.read(min(length, size))
        if opcode == Opcode.CHUNK:
            unpacked = _chunk(content)
            left -= len(unpacked)
            if left <= 0:
                raise Damage(f"its chunks unpack to more than {max_total(size)} bytes")
            inside = io.BytesIO(unpacked)
            try:
                yield from _records(inside, len(unpacked), 0)
            except Damage:
                # A chunk has no end of its own: whole records up to its length are in order.
                if len(content) < length or inside.tell() < len(unpacked):
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
            return unpack_zstd(packed)
        if compression == b"lz4":
            return unpack_lz4(packed)
    except (LimitError, zstandard.ZstdError, RuntimeError) as error:
        raise Damage(f"a chunk cannot be unpacked: {error}") from error
    if compression:
        raise Damage(f"a chunk is packed with {compression!r}, expected zstd or lz4")
    return packed


def _read_sqlite(file: Path) -> Iterator[_Message]:
    try:
        with closing(_open_sqlite(file)) as database:
            check_tables(database, file.stat().st_size)
            sources = _sqlite_sources(database)
            rows = database.execute("SELECT topic_id, timestamp, data FROM messages")
            # SQLite reads a missing end of the last message as zeros.
            short = is_short(file)
            last: _Message | None = None
            cut: Exception | None = None
            while True:
                try:
                    row = next(rows, None)
                except (apsw.Error, UnicodeDecodeError) as error:
                    cut, row = error, None
                if last is not None and not (row is None and short and last[2].endswith(b"\0")):
                    yield last
                if row is None:
                    break
                topic, time_ns, data = row
                stored = isinstance(data, bytes) and isinstance(time_ns, int)
                last = (sources[topic], time_ns, data) if topic in sources and stored else None
            if cut is not None:
                raise cut
    except (apsw.Error, LimitError, UnicodeDecodeError) as error:
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
        view = _WholePages(_page_size(file)) if is_short(file) else None
        name = f"{file.absolute().as_uri()}?{options}"
        try:
            database = apsw.Connection(name, flags, view.name if view else None)
            # Without this a file that is shorter than its header declares is refused as a whole.
            database.execute("PRAGMA writable_schema = ON")
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
            return database
        except apsw.Error:
            if options == "immutable=1":
                raise
    raise AssertionError


def _sqlite_sources(database: apsw.Connection) -> dict[int, Source]:
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
            if isinstance(encoding, str) and isinstance(text, str)
        }
    return {
        number: Source(topic, msgtype, *definitions.get(msgtype, ("", "")), digest, form, qos)
        for number, topic, msgtype, form, qos, digest in database.execute(
            f"SELECT {chosen} FROM topics"
        )
        if all(isinstance(text, str) for text in (topic, msgtype, form, qos, digest))
    }


def is_short(file: Path) -> bool:
    """Whether an sqlite3 file has fewer pages than its header declares."""
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
