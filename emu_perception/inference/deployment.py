"""Deployment files: one ONNX graph from image and camera to the maps of `Prediction`.

Inputs: `image`, uint8 RGB `(H, W, 3)`; `camera`, float32 `(4,)` fx, fy, cx, cy in pixels of the
image, zeros for an unknown camera; `output_size`, int64 `(2,)` height and width of the maps, zeros
for the image's. Outputs: maps by the names of `Prediction`'s fields, in their units, and
`features`, float32 `(1, E)`, the encoder's coarsest feature map averaged over the image.

The engines here run the part between `PIXELS` and the raw outputs, whose values have fixed names in
the graph, and compute the rest by `resampling` and `postprocessing`, which take a fraction of the
time. Nothing here needs the package onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

PIXELS = "network_pixels"
"""`(1, 3, h, w)` float32, 0–255: the image at the network's size."""
CAMERA = "network_camera"
"""`(1, 4)` float32 fx, fy, cx, cy in pixels of that size; only of networks that take rays."""
RAW = "raw_"
"""Before a task's name: its raw outputs, as `networks.raw_outputs.RawOutputs` describes them."""
FEATURES = "features"
SUFFIX = ".onnx"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_METADATA = 14
"""Number of the field `metadata_props` in ONNX's `ModelProto`."""


def network_outputs(tasks: Iterable[str]) -> dict[str, str]:
    """Names of the values at the network's end, by task; `features` may be missing in a file."""
    return {**{task: f"{RAW}{task}" for task in tasks}, FEATURES: FEATURES}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file.

    Reads the outermost fields of the protobuf message and skips the graph.

    Raises:
        ValueError: it is not an ONNX file, or is truncated.
    """
    found: dict[str, str] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            key = _varint(file.read)
            field, wire = key >> 3, key & 7
            if wire == _VARINT:
                _varint(file.read)
            elif wire == _BYTES:
                length = _varint(file.read)
                if field == 0 or file.tell() + length > size:
                    raise ValueError("it is truncated, or not an ONNX file")
                if field == _METADATA:
                    name, value = _entry(file.read(length))
                    found[name] = value
                else:
                    file.seek(length, 1)
            elif wire in (_FIXED32, _FIXED64):
                file.seek(4 if wire == _FIXED32 else 8, 1)
            else:
                raise ValueError("it is not an ONNX file")
    return found


def _entry(data: bytes) -> tuple[str, str]:
    """Key and value of a `StringStringEntryProto`."""
    values = {1: "", 2: ""}
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        position += count
        return data[position - count : position]

    while position < len(data):
        key = _varint(read)
        values[key >> 3] = read(_varint(read)).decode("utf-8")
    return values[1], values[2]


def _varint(read: Callable[[int], bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is truncated, or not an ONNX file")
