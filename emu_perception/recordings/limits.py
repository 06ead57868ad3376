"""Limits of decompression: a small file may expand to gigabytes, or never end.

rosbags unpacks chunks and messages without a limit, and runs the queries of a database on whatever
it finds there. Its unpacking is bounded here once for all readers; files are checked before it
opens them.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, BinaryIO

import apsw
import lz4.frame
import zstandard
from rosbags.rosbag2 import reader as rosbags_reader
from rosbags.rosbag2 import storage_mcap

MAX_UNPACKED = 1 << 28
"""Bytes of a chunk or a message: twice the largest image of 16-bit RGBA."""
MAX_OVERLAP = 1 << 29
"""Bytes of chunks whose times overlap: they are in memory at once."""
_FREE_CHUNK, _FREE_TOTAL, _RATIO = 1 << 26, 1 << 30, 200
"""Bytes that may come from any number of packed bytes, and for each packed byte."""
_BLOCK = 1 << 20
_CHUNK, _DATA_END = 6, 15
_TABLES = ("messages", "topics", "message_definitions", "schema", "metadata")
_STEPS_PER_CALL = 10_000


class LimitError(ValueError):
    """A recording that declares, or unpacks to, more than is read; the text states what."""


def max_total(packed: int) -> int:
    """Bytes that a file of so many bytes may unpack to: 1 GiB, and 200 times its size."""
    return _FREE_TOTAL + _RATIO * packed


def max_unpacked(packed: int) -> int:
    """The same of a chunk or message: 64 MiB, and 200 times its size, but at most 256 MiB."""
    return min(MAX_UNPACKED, _FREE_CHUNK + _RATIO * packed)


def unpack_zstd(data: bytes, limit: int | None = None) -> bytes:
    """The content of a zstd frame; what is there of one that is cut off.

    Raises:
        LimitError: it is larger than `limit` bytes, by default `max_unpacked`.
        zstandard.ZstdError: the data are damaged.
    """
    blocks, size = [], 0
    limit = max_unpacked(len(data)) if limit is None else limit
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            _require_below(size, limit)
            blocks.append(block)
    return b"".join(blocks)


def unpack_lz4(data: bytes, limit: int | None = None) -> bytes:
    """The same of an lz4 frame; RuntimeError where the data are damaged."""
    blocks, size = [], 0
    limit = max_unpacked(len(data)) if limit is None else limit
    unpacker = lz4.frame.LZ4FrameDecompressor()
    block = unpacker.decompress(data, _BLOCK)
    while block:
        size += len(block)
        _require_below(size, limit)
        blocks.append(block)
        block = b"" if unpacker.eof else unpacker.decompress(b"", _BLOCK)
    return b"".join(blocks)


def _require_below(size: int, limit: int) -> None:
    if size > limit:
        raise LimitError(f"it unpacks to more than {limit} bytes")


class _BoundedFile:
    """A packed file that stops at the total for its size."""

    def __init__(self, packed: BinaryIO) -> None:
        size = packed.seek(0, io.SEEK_END)
        packed.seek(0)
        self._left = max_total(size)
        self._stream = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)

    def read(self, size: int = _BLOCK) -> bytes:
        block: bytes = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise LimitError("the packed file unpacks to more than 200 times its size")
        return block

    def __enter__(self) -> _BoundedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


def bound_rosbags() -> None:
    """Replace the functions that rosbags unpacks with; may be called again."""
    bounded: dict[str, Callable[[bytes, int], bytes]] = {
        "zstd": lambda data, size: unpack_zstd(data, min(size, max_unpacked(len(data)))),
        "lz4": lambda data, size: unpack_lz4(data, min(size, max_unpacked(len(data)))),
    }
    storage_mcap.DECOMPRESSORS.update(bounded)
    vars(rosbags_reader)["zstd"] = SimpleNamespace(
        decompress=unpack_zstd, open=lambda packed, mode: _BoundedFile(packed)
    )


# mcap


def check_sizes(sizes: Iterable[int], packed: int) -> None:
    """LimitError for chunks of so many bytes in a file of `packed` bytes, if that is too much."""
    total = 0
    for size in sizes:
        if size > MAX_UNPACKED:
            raise LimitError(f"a chunk declares {size} bytes, at most {MAX_UNPACKED} are unpacked")
        total += size
        if total > max_total(packed):
            raise LimitError(
                f"its chunks declare {total} bytes and more, at most {max_total(packed)} are "
                f"unpacked from {packed}"
            )


def check_mcap(file: Path) -> None:
    """LimitError for an mcap file that declares to unpack to too much."""
    check_sizes(_chunk_sizes(file), file.stat().st_size)


def _chunk_sizes(file: Path) -> Iterable[int]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(8)
        while len(head := stream.read(33)) >= 9:
            opcode, length = struct.unpack_from("<BQ", head)
            if opcode == _DATA_END or length > size:
                return
            if opcode == _CHUNK and len(head) == 33:
                yield struct.unpack_from("<Q", head, 25)[0]
            stream.seek(length + 9 - len(head), io.SEEK_CUR)


def check_index(storage: Any, packed: int) -> None:
    """LimitError where the index of an open mcap file keeps too much in memory at once.

    Args:
        storage: rosbags' McapReader.
        packed: bytes of the file.
    """
    chunks = getattr(storage, "chunks", ())
    check_sizes((chunk.uncompressed_size for chunk in chunks), packed)
    changes = [
        change
        for chunk in chunks
        for change in (
            (chunk.message_start_time, 1, chunk.uncompressed_size),
            (chunk.message_end_time, 2, -chunk.uncompressed_size),
        )
    ]
    held = 0
    for _, _, change in sorted(changes):
        held += change
        if held > MAX_OVERLAP:
            raise LimitError(f"chunks of more than {MAX_OVERLAP} bytes overlap in time")


# metadata.yaml

_MAX_METADATA, _MAX_LISTS = 1 << 22, 10_000
_YAML_DEPTH = re.compile(rb"(?:[-?]\s+){50}")
_YAML_REFERENCE = re.compile(rb"(?:^|[\s\[{,:-])[&*][A-Za-z0-9_]", re.MULTILINE)


def check_metadata(file: Path) -> list[str]:
    """Problems of a metadata.yaml: its size, or references, which multiply their content."""
    if file.stat().st_size > _MAX_METADATA:
        return [f"{file.name} has more than {_MAX_METADATA} bytes"]
    text = file.read_bytes()
    if text.count(b"[") + text.count(b"{") > _MAX_LISTS or _YAML_DEPTH.search(text):
        return [f"{file.name} is nested too deeply"]
    if _YAML_REFERENCE.search(text):
        return [f"{file.name} holds references (& and *)"]
    return []


# sqlite3


def check_tables(database: apsw.Connection, size: int) -> None:
    """LimitError unless a database of `size` bytes stores what it holds, and no more.

    Views and computed columns can yield rows without end, and so can pages that refer to one
    another more than once.
    """
    found = database.execute(
        "SELECT name, type, sql FROM sqlite_master WHERE lower(name) IN (?, ?, ?, ?, ?)", _TABLES
    ).fetchall()
    for name, kind, sql in found:
        if kind != "table" or not str(sql).upper().startswith("CREATE TABLE"):
            raise LimitError(f"{name} is a {kind}, expected a table")
        if any(row[6] for row in database.execute(f"PRAGMA table_xinfo({_quoted(str(name))})")):
            raise LimitError(f"the table {name} has computed columns")
    calls = 0

    def count_steps() -> bool:
        nonlocal calls
        calls += 1
        return calls * _STEPS_PER_CALL > 4 * size + 1_000_000

    database.set_progress_handler(count_steps, _STEPS_PER_CALL)
    try:
        for name, _, _ in found:
            indexes = [
                row[1] for row in database.execute(f"PRAGMA index_list({_quoted(str(name))})")
            ]
            for clause in ("NOT INDEXED", *(f"INDEXED BY {_quoted(each)}" for each in indexes)):
                with suppress(apsw.CorruptError, apsw.SQLError):  # found when it is read
                    database.execute(
                        f"SELECT total(1) FROM {_quoted(str(name))} {clause}"
                    ).fetchall()
    except apsw.InterruptError:
        raise LimitError("its tables have more rows than a file of its size can hold") from None
    finally:
        database.set_progress_handler(None)


def check_sqlite(file: Path) -> None:
    """`check_tables` of a file; what else is wrong with it is found when it is read."""
    try:
        with closing(
            apsw.Connection(
                f"{file.absolute().as_uri()}?immutable=1",
                apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            )
        ) as database:
            check_tables(database, file.stat().st_size)
    except (apsw.Error, UnicodeDecodeError):  # names are any bytes
        return


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
