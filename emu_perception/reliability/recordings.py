"""Hostile recordings: files that unpack to gigabytes, never end, or contradict themselves."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np

from emu_perception.recordings.image_messages import image_message
from emu_perception.recordings.reader import IMAGE, message_types
from emu_perception.recordings.writer import BagWriter

TOPIC = "/camera"
MAGIC = b"\x89MCAP0\r\n"
_SCHEMA = """CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT,
    serialization_format TEXT, offered_qos_profiles TEXT);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);"""


def image_cdr(stamp_ns: int = 0, size: tuple[int, int] = (8, 16)) -> bytes:
    """A serialized rgb8 Image."""
    message = image_message(np.full((*size, 3), 90, np.uint8), stamp_ns)
    return bytes(message_types().serialize_cdr(message, IMAGE))


def write_recording(path: Path, storage: str = "mcap", compress: bool = False) -> Path:
    """A sound recording of three small images."""
    with BagWriter(path, storage=storage, compress=compress) as bag:  # type: ignore[arg-type]
        for stamp in range(3):
            bag.write_cdr(TOPIC, IMAGE, image_cdr(stamp), stamp)
    return path


# mcap


def record(opcode: int, content: bytes) -> bytes:
    """An mcap record."""
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _definitions(definition: str | None = None) -> bytes:
    """Schema and channel of images; another definition is that of the type in the file alone."""
    if definition is None:
        definition = message_types().generate_msgdef(IMAGE)[0]
    schema = struct.pack("<H", 1) + _text(IMAGE) + _text("ros2msg") + _text(definition)
    channel = struct.pack("<HH", 1, 1) + _text(TOPIC) + _text("cdr") + _text(b"")
    return record(3, schema) + record(4, channel)


def _image(stamp: int = 0) -> bytes:
    return record(5, struct.pack("<HIQQ", 1, 0, stamp, stamp) + image_cdr(stamp))


def chunk(
    packed: bytes, compression: str, unpacked_size: int, times: tuple[int, int] = (0, 9)
) -> bytes:
    """An mcap chunk that declares to unpack to so many bytes."""
    head = struct.pack("<QQQI", *times, unpacked_size, 0)
    return record(6, head + _text(compression) + struct.pack("<Q", len(packed)) + packed)


def mcap(records: bytes, summary: bytes = b"") -> bytes:
    """An mcap file."""
    begin = MAGIC + record(1, _text("ros2") + _text("fuzz")) + records + record(15, bytes(4))
    start = len(begin) if summary else 0
    return begin + summary + record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC


def zstd_bomb(unpacked_size: int) -> bytes:
    """A zstd frame of zeros: 4 bytes for every 128 KiB."""
    blocks = -(-unpacked_size // (1 << 17))
    block = struct.pack("<I", 1 << 1 | (1 << 17) << 3)[:3] + b"\0"
    last = struct.pack("<I", 1 | 1 << 1 | (1 << 17) << 3)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x38" + block * (blocks - 1) + last


def nested_chunks(depth: int) -> bytes:
    """An mcap file whose chunk holds a chunk, and so on."""
    content = _definitions() + _image()
    for _ in range(depth):
        content = chunk(content, "", len(content))
    return mcap(content)


def overlapping_chunks(count: int, size: int) -> bytes:
    """An mcap file with an index, by which all chunks are needed at the same time."""
    packed = zstd_bomb(size)
    each = chunk(packed, "zstd", size)
    begin = len(MAGIC) + len(record(1, _text("ros2") + _text("fuzz")))
    index = b""
    for number in range(count):
        offsets = _text(struct.pack("<HQ", 1, begin + len(each) * (number + 1)))
        fields = struct.pack("<QQQQ", 0, 9, begin + len(each) * number, len(each)) + offsets
        sizes = struct.pack("<QQ", len(packed), size)
        index += record(8, fields + struct.pack("<Q", 31) + _text("zstd") + sizes)
    return mcap(each * count, _definitions() + index)


# sqlite3


def _database(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA page_size = 512;" + _SCHEMA)
        database.execute("INSERT INTO topics VALUES (1, ?, ?, 'cdr', '')", (TOPIC, IMAGE))
        for stamp in range(3):
            values = (stamp, image_cdr(stamp, (2, 2)))
            database.execute("INSERT INTO messages VALUES (NULL, 1, ?, ?)", values)
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


def repeated_pages(path: Path, depth: int = 10) -> Path:
    """A database whose pages refer to the next one 60 times each: 60 ** depth rows."""
    _database(path, *["INSERT INTO messages VALUES (NULL, 1, 9, x'00')"] * 1000)
    with closing(sqlite3.connect(path)) as database:
        (root,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'messages'"
        ).fetchone()
    data = bytearray(path.read_bytes())
    size = 512
    kinds = {number: data[(number - 1) * size] for number in range(2, len(data) // size + 1)}
    leaves = [number for number, kind in kinds.items() if kind == 0x0D and number != root]
    chain = [root, *leaves[1 : depth + 1]]
    for page, following in pairwise(chain):
        cells = 60
        cell = struct.pack(">IB", following, 1)
        begin = size - cells * len(cell)
        head = struct.pack(">BHHHBI", 0x05, 0, cells, begin, 0, following)
        pointers = struct.pack(f">{cells}H", *range(begin, size, len(cell)))
        filled = (head + pointers).ljust(begin, b"\0") + cell * cells
        data[(page - 1) * size : page * size] = filled
    path.write_bytes(data)
    return path


_ENDLESS = """CREATE VIEW messages AS WITH RECURSIVE n(i) AS
    (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 1 AS topic_id, i AS timestamp,
    x'00' AS data FROM n"""
_COMPUTED = """CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER,
    data BLOB AS (zeroblob(500000000)))"""

_FOLDER_METADATA = b"""rosbag2_bagfile_information:
  version: 5
  storage_identifier: mcap
  duration: {nanoseconds: %(duration)s}
  starting_time: {nanoseconds_since_epoch: 0}
  message_count: 3
  topics_with_message_count:
    - topic_metadata: {name: %(name)s, type: sensor_msgs/msg/Image, serialization_format: cdr,
        offered_qos_profiles: ""}
      message_count: 3
  compression_format: ""
  compression_mode: ""
  relative_file_paths: [drive.mcap]
"""


def _with_metadata(folder: Path, text: bytes) -> Path:
    write_recording(folder)
    (storage,) = folder.glob("*.mcap")
    storage.rename(folder / "drive.mcap")
    (folder / "metadata.yaml").write_bytes(text)
    return folder


def _metadata(duration: bytes = b"3", name: bytes = b"/camera") -> bytes:
    return _FOLDER_METADATA % {b"duration": duration, b"name": name}


def _written(data: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return write


def corpus() -> dict[str, Callable[[Path], Path]]:
    """Writers of hostile recordings by name; each gets a path that ends as the name does."""
    references = b"a: &a [x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 9)) for n in range(97, 110)
    )
    bomb = zstd_bomb(20 << 30)
    return {
        "zstd_bomb.mcap": _written(mcap(chunk(bomb, "zstd", 20 << 30))),
        "zstd_bomb_that_lies.mcap": _written(mcap(chunk(bomb, "zstd", 1000))),
        "nested.mcap": _written(nested_chunks(3000)),
        "many_bombs.mcap": _written(mcap(chunk(zstd_bomb(1 << 26), "zstd", 1 << 26) * 40)),
        "overlapping.mcap": _written(overlapping_chunks(9, 1 << 26)),
        "no_text.mcap": _written(mcap(record(4, struct.pack("<HHI", 1, 1, 2**32 - 1)))),
        "long_record.mcap": _written(mcap(struct.pack("<BQ", 5, 1 << 62))),
        "own_definition.mcap": _written(mcap(_definitions("int32 number\n") + _image())),
        "endless_view.db3": lambda path: _database(path, "DROP TABLE messages", _ENDLESS),
        "computed.db3": lambda path: _database(path, "DROP TABLE messages", _COMPUTED),
        "repeated_pages.db3": repeated_pages,
        "null_topic.db3": lambda path: _database(path, "UPDATE topics SET name = NULL"),
        "null_data.db3": lambda path: _database(path, "UPDATE messages SET data = NULL"),
        "text_times.db3": lambda path: _database(path, "UPDATE messages SET timestamp = 'noon'"),
        "references": lambda path: _with_metadata(path, references + _metadata()),
        "deep_metadata": lambda path: _with_metadata(path, b"[" * 200_000),
        "text_duration": lambda path: _with_metadata(path, _metadata(duration=b"long")),
        "null_name": lambda path: _with_metadata(path, _metadata(name=b"null")),
    }
