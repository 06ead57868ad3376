"""Reads ONNX files as protobuf messages, without the package onnx, and checks them before use.

Field numbers are those of ONNX's `onnx.proto`.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MAX_FIELDS = 1_000_000
"""Fields that are read of one file; a network has some ten thousand."""
MAX_NESTING = 16
"""Messages inside messages; each `If` or `Loop` takes three."""
MAX_METADATA = 8 << 20
"""Bytes of the metadata."""

MAX_OPSET = 100
"""Version of an operator set."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_OPSET, _OPSET_VERSION, _METADATA = 8, 2, 14
_TENSOR = "tensor"
_PARTS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Messages by the kind of message that holds them and their field."""
_DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 2, 4, 8, 9, 13, 14
_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
"""NumPy type of a tensor's raw data by its `data_type`."""

Field = tuple[int, int, int, int, int]
"""Number, value of a varint (else 0), and where the field, its content and its end are."""


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file; skips the graph.

    Raises:
        ValueError: it is not an ONNX file, or is truncated.
        OSError: it cannot be read.
    """
    found: dict[str, str] = {}
    with _mapped(path) as reader:
        size = 0
        for number, _, _, begin, end in reader.fields(0, reader.size):
            if number == _METADATA:
                size += end - begin
                if size > MAX_METADATA:
                    raise ValueError(f"its metadata takes more than {MAX_METADATA} bytes")
                name, value = _entry(reader, begin, end)
                found[name] = value
    return found


def graph_digest(path: Path) -> str:
    """SHA-256 of an ONNX file but its metadata; hexadecimal.

    Raises:
        ValueError, OSError: as `read_metadata`.
    """
    digest = hashlib.sha256()
    with _mapped(path) as reader:
        for number, _, start, _, end in reader.fields(0, reader.size):
            if number != _METADATA:
                digest.update(reader.data[start:end])
    return digest.hexdigest()


def check_graph(path: Path, expected: str | None) -> None:
    """Refuse an ONNX file that was changed, refers to other files, or has weights that spoil
    every output.

    Args:
        path: of the file.
        expected: its `graph_digest`; None for files of older versions.

    Raises:
        ValueError: it must not be used, or is damaged.
        OSError: it cannot be read.
    """
    if expected is not None and graph_digest(path) != expected:
        raise ValueError("the network is not the one that was written: its digest differs")
    with _mapped(path) as reader:
        _check_message(reader, "model", 0, reader.size, 0)


def _check_message(reader: _Reader, kind: str, begin: int, end: int, nesting: int) -> None:
    if nesting > MAX_NESTING:
        raise ValueError(f"its graph is nested more than {MAX_NESTING} deep")
    for number, _, _, first, last in reader.fields(begin, end):
        if kind == "model" and number == _OPSET:
            for field, value, *_ in reader.fields(first, last):
                if field == _OPSET_VERSION and value > MAX_OPSET:
                    raise ValueError(f"its operator set has the version {value}")
        part = _PARTS[kind].get(number)
        if part == _TENSOR:
            _check_tensor(reader, first, last, weights=kind == "graph")
        elif part is not None:
            _check_message(reader, part, first, last, nesting + 1)


def _check_tensor(reader: _Reader, begin: int, end: int, *, weights: bool) -> None:
    kind, name, numbers = 0, "", []
    for field, value, _, first, last in reader.fields(begin, end):
        if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value):
            raise ValueError("its weights are in other files, which are not read")
        if field == _DATA_TYPE:
            kind = value
        elif field == _NAME:
            name = reader.text(first, last)
        elif field in (_RAW_DATA, _FLOAT_DATA):
            numbers.append((field, first, last))
    if not weights:
        return
    for field, first, last in numbers:
        stored = _FLOATS.get(kind) if field == _RAW_DATA else "<f4"
        if stored is None:
            continue
        if (last - first) % np.dtype(stored).itemsize:
            raise ValueError(f"the weights '{name}' have {last - first} bytes, which is no array")
        # A copy: an array over the mapped file would keep it from being closed.
        if not np.isfinite(np.frombuffer(bytes(reader.data[first:last]), stored)).all():
            raise ValueError(f"the weights '{name}' hold numbers that are not finite")


class _Reader:
    """Walks over the fields of a mapped file."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.size = len(data)
        self._left = MAX_FIELDS

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        """The fields of the message between two places."""
        at = begin
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            start = at
            key, at = self._varint(at, end)
            number, wire, value = key >> 3, key & 7, 0
            first = at
            if wire == _VARINT:
                value, at = self._varint(at, end)
            elif wire == _BYTES:
                length, first = self._varint(at, end)
                at = first + length
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
            else:
                raise ValueError("it is not an ONNX file")
            if number == 0 or at > end:
                raise ValueError("it is truncated, or not an ONNX file")
            yield number, value, start, first, at

    def text(self, begin: int, end: int) -> str:
        """A field's content as text."""
        return bytes(self.data[begin:end]).decode("utf-8")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number and the place after it."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise ValueError("it is truncated, or not an ONNX file")


def _entry(reader: _Reader, begin: int, end: int) -> tuple[str, str]:
    """Key and value of a `StringStringEntryProto`."""
    values = {1: "", 2: ""}
    for number, _, _, first, last in reader.fields(begin, end):
        if number in values:
            values[number] = reader.text(first, last)
    return values[1], values[2]


@contextmanager
def _mapped(path: Path) -> Iterator[_Reader]:
    """A reader of a file that is mapped, not read: networks may be large."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            yield _Reader(data)
