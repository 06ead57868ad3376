"""Image files from outside: checked before a decoder sees them; and image files written whole.

A decoder trusts what a file declares. OpenCV allocates the declared length of a PNG chunk, a JPEG
may hold thousands of scans, and a text chunk may unpack to megabytes. So the structure of a file is
walked first, in its own words: every length lies inside the data, only known parts are left, and
the size in pixels is known before memory is allocated for it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emu_perception.atomic import write_bytes
from emu_perception.native_stderr import quiet_decoders

MAX_PIXELS = 1 << 24
"""The largest image in a message or a recording, 4096 x 4096, unless a parameter sets another
limit: more is taken for a broken message."""
MAX_FILE_PIXELS = 1 << 26
"""The largest image in a file that a person names: 8192 x 8192."""
MAX_ASPECT = 16
"""Longer side over shorter side at most. A network sees each image at its own area and at least
32 pixels high, so a thin one would take many times the memory and time that it was made for."""
COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""OpenCV flags: 8-bit BGR; orientation tags are ignored, since label maps have none."""
UPRIGHT_COLOR = cv2.IMREAD_COLOR
"""OpenCV flags: 8-bit BGR, turned as the orientation tag requires."""
STORED = cv2.IMREAD_UNCHANGED
"""OpenCV flags: type and channels as they are stored."""

_MAX_PARTS = 1 << 16
"""Chunks of a PNG, segments of a JPEG: a picture of 8192 x 8192 has a tenth of it."""
_MAX_SCANS = 64
"""Scans of a progressive JPEG: encoders write about ten; each costs a pass over all pixels."""


class ImageFileError(ValueError):
    """Data that are no image file, a damaged one, or one that is too large; the text has one line
    and names no file."""


@dataclass(frozen=True)
class ImageFile:
    """An encoded image whose structure was checked, not yet decoded."""

    kind: str
    """JPEG, PNG, WebP or TIFF."""
    height: int
    width: int
    data: bytes | memoryview
    """Data for the decoder; of a PNG without text and colour profiles."""

    def decode(self, flags: int = COLOR) -> np.ndarray:
        """`(H, W)` or `(H, W, C)` in OpenCV's order (BGR).

        Raises:
            ImageFileError: the compressed pixels are damaged.
        """
        try:
            with quiet_decoders():
                image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        except (cv2.error, MemoryError):
            image = None
        if image is None:
            raise ImageFileError(f"the {self.kind} is damaged: it cannot be decoded")
        if set(image.shape[:2]) != {self.height, self.width}:
            raise ImageFileError(
                f"the {self.kind} is damaged: its header declares {self.width} x {self.height} "
                f"pixels, and it holds {image.shape[1]} x {image.shape[0]}"
            )
        return image


def is_thin(height: int, width: int) -> bool:
    """Whether an image's proportions are beyond `MAX_ASPECT`."""
    return max(height, width) > MAX_ASPECT * min(height, width)


def open_image(data: bytes | bytearray | memoryview | np.ndarray) -> ImageFile:
    """Check the structure of an encoded image and read its size; nothing is decoded.

    Raises:
        ImageFileError: it is no JPEG, PNG, WebP or TIFF, or not a whole one.
    """
    view = memoryview(data).cast("B")
    head = bytes(view[:12])
    for begins, read in _READERS:
        if begins(head):
            try:
                return read(view)
            except (struct.error, IndexError):  # a field lies beyond the end
                raise ImageFileError("the image file is cut off") from None
    raise ImageFileError("not an image file that can be read (JPEG, PNG, WebP or TIFF)")


def decode_image(
    data: bytes | bytearray | memoryview | np.ndarray,
    flags: int = COLOR,
    max_pixels: float = MAX_FILE_PIXELS,
) -> np.ndarray:
    """`(H, W)` or `(H, W, C)` in OpenCV's order (BGR) of an encoded image.

    Args:
        data: the file's content.
        flags: `COLOR`, `UPRIGHT_COLOR` or `STORED`.
        max_pixels: height x width at most.

    Raises:
        ImageFileError: the data are no whole image file, or the image is too large.
    """
    file = open_image(data)
    if file.height * file.width > max_pixels:
        raise ImageFileError(
            f"the image is {file.width} x {file.height} pixels, at most {max_pixels} are read: "
            "make it smaller"
        )
    return file.decode(flags)


def read_image_file(
    path: Path, flags: int = UPRIGHT_COLOR, max_pixels: float = MAX_FILE_PIXELS
) -> np.ndarray:
    """`decode_image` of a file.

    Raises:
        ImageFileError: as `decode_image`; the text names the file.
        OSError: the file cannot be read.
    """
    try:
        return decode_image(path.read_bytes(), flags, max_pixels)
    except ImageFileError as error:
        raise ImageFileError(f"{path}: {error}") from None


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write `(H, W)` or RGB `(H, W, 3)` as a PNG file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    stored = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    _, data = cv2.imencode(".png", np.ascontiguousarray(stored))
    write_bytes(path, data.data)


# PNG (ISO/IEC 15948)

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
"""Chunks for pixels and orientation; the others hold text and colour profiles."""


def _png_chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of each chunk, from its length to its checksum."""
    at = len(_PNG)
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ImageFileError(
                f"the PNG is cut off: a chunk declares {length} bytes, {len(data) - at - 8} are "
                "left"
            )
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end
    raise ImageFileError(f"the PNG has more than {_MAX_PARTS} chunks")


def _read_png(data: memoryview) -> ImageFile:
    chunks = list(_png_chunks(data))
    kind, begin, end = chunks[0]
    if kind != b"IHDR" or end - begin != 25:
        raise ImageFileError("the PNG is damaged: it does not begin with its header")
    kinds = [each[0] for each in chunks]
    if b"acTL" in kinds or b"fcTL" in kinds:
        raise ImageFileError("the PNG is animated, expected a single image")
    if kinds.count(b"IHDR") > 1 or b"IDAT" not in kinds:
        raise ImageFileError("the PNG is damaged: expected one header, and pixels")
    width, height = struct.unpack_from(">II", data, begin + 8)
    _require_pixels("PNG", height, width)
    kept = [data[b:e] for kind, b, e in chunks if kind in _PNG_KEPT]
    whole: bytes | memoryview = data[: chunks[-1][2]]
    if len(kept) < len(chunks):
        whole = b"".join([_PNG, *kept])
    return ImageFile("PNG", height, width, whole)


# JPEG (ITU T.81): baseline, extended and progressive, Huffman coded

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SOF = (0xC0, 0xC1, 0xC2)
_SOS, _EOI, _TEM = 0xDA, 0xD9, 0x01
_SEGMENTS = {*_SOF, 0xC4, 0xDB, 0xDC, 0xDD, _SOS, 0xFE, *range(0xE0, 0xF0)}


def _read_jpeg(data: memoryview) -> ImageFile:
    at, scans = 2, 0
    size: tuple[int, int] | None = None
    for _ in range(_MAX_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            raise ImageFileError("the JPEG is cut off: it has no end-of-image marker")
        marker, at = found[1][0], found.end()
        if marker == _EOI and size is not None and scans:
            return ImageFile("JPEG", *size, data[:at])
        if marker == _TEM:
            continue
        if marker not in _SEGMENTS:
            raise ImageFileError(f"the JPEG is damaged, or of a rare kind: marker ff{marker:02x}")
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2 or at + length > len(data):
            raise ImageFileError("the JPEG is cut off: a segment ends beyond the data")
        if marker in _SOF:
            if size is not None:
                raise ImageFileError("the JPEG is damaged: it has two frame headers")
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            _require_pixels("JPEG", height, width)
            if components not in (1, 3, 4):
                raise ImageFileError(f"the JPEG has {components} colours, expected 1, 3 or 4")
            size = height, width
        if marker == _SOS:
            scans += 1
            if size is None or scans > _MAX_SCANS:
                raise ImageFileError(
                    "the JPEG is damaged: pixels come before its size"
                    if size is None
                    else f"the JPEG has more than {_MAX_SCANS} scans"
                )
        at += length
    raise ImageFileError(f"the JPEG has more than {_MAX_PARTS} segments")


# WebP (RFC 9649)


def _read_webp(data: memoryview) -> ImageFile:
    (riff,) = struct.unpack_from("<I", data, 4)
    end = 8 + riff
    if end > len(data):
        raise ImageFileError(f"the WebP is cut off: it has {len(data)} bytes, expected {end}")
    at, sizes = 12, []
    for _ in range(_MAX_PARTS):
        if at >= end:
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        at += 8
        if at + length > end:
            raise ImageFileError("the WebP is cut off: a chunk ends beyond the data")
        if kind in (b"ANIM", b"ANMF"):
            raise ImageFileError("the WebP is animated, expected a single image")
        if kind == b"VP8X":
            flags, low, middle, high = struct.unpack_from("<I3H", data, at)
            if flags & 0x02:
                raise ImageFileError("the WebP is animated, expected a single image")
            sizes.append((1 + (middle >> 8 | high << 8), 1 + (low | (middle & 255) << 16)))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, at + 6)
            sizes.append((height & 0x3FFF, width & 0x3FFF))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, at + 1)
            sizes.append((1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)))
        at += length + length % 2
    if not sizes or len(set(sizes)) > 1:
        raise ImageFileError("the WebP is damaged: expected one image of one size")
    _require_pixels("WebP", *sizes[0])
    return ImageFile("WebP", *sizes[0], data[:end])


# TIFF 6.0: the first image

_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_TIFF_COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32946: "Deflate", 32773: "PackBits"}
_LARGEST_TILE_EDGE = 256
"""Pixels by which a tile may exceed the image."""


def _read_tiff(data: memoryview) -> ImageFile:
    order = "<" if data[0] == ord("I") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    fields: dict[int, int] = {}
    for entry in range(count):
        at = directory + 2 + 12 * entry
        tag, kind, number = struct.unpack_from(order + "HHI", data, at)
        size = _TIFF_TYPES.get(kind, 8) * number
        place = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if place + size > len(data):
            raise ImageFileError(f"the TIFF is cut off: its field {tag} ends beyond the data")
        if kind in (3, 4) and number:
            largest = np.frombuffer(data[place : place + size], f"{order}u{size // number}").max()
            fields.setdefault(tag, int(largest))
    width, height = fields.get(_WIDTH, 0), fields.get(_HEIGHT, 0)
    _require_pixels("TIFF", height, width)
    if fields.get(_BITS, 1) > 32 or fields.get(_SAMPLES, 1) > 4:
        raise ImageFileError("the TIFF has other pixels than 1 to 4 samples of up to 32 bits")
    if fields.get(_COMPRESSION, 1) not in _TIFF_COMPRESSIONS:
        known = ", ".join(dict.fromkeys(_TIFF_COMPRESSIONS.values()))
        raise ImageFileError(
            f"the TIFF has the compression {fields[_COMPRESSION]}, expected {known}"
        )
    for tag, edge in ((_TILE_WIDTH, width), (_TILE_HEIGHT, height)):
        if fields.get(tag, 0) > edge + _LARGEST_TILE_EDGE:
            raise ImageFileError("the TIFF is damaged: its tiles are larger than the image")
    return ImageFile("TIFF", height, width, data)


def _require_pixels(kind: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ImageFileError(f"the {kind} is {width} x {height} pixels: it is empty")


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[memoryview], ImageFile]], ...] = (
    (lambda head: head.startswith(_PNG), _read_png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), _read_jpeg),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _read_webp),
    (lambda head: head[:4] in (b"II*\0", b"MM\0*"), _read_tiff),
)
