"""Image and CompressedImage messages, sound and spoilt, with what they must yield."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator as Rng

from emu_perception.images import is_thin
from emu_perception.inference.predictor import Predictor
from emu_perception.messages.images import ENCODINGS, rgb_from_compressed, rgb_from_image
from emu_perception.reliability.judge import Case

MAX_SIDE = 96
FUZZED_PIXELS = 1 << 22
"""Limit that the messages are converted with: a picture of 4 million pixels is normal work."""
PREDICTED = 10
"""The maps of one in so many answered images are compared."""
LAYOUTS = ("rgb", "bgr", "rgba", "bgra", "mono")
NUMBERS = (0, 1, 2, 3, 31, 255, 65_535, 65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_ODD_ENCODINGS = ("", "RGB8", "32FC1", "8UC3", "rgb9", "\x1b[2Jrgb8", "x" * 100_000, "mono8\n")


def pick(rng: Rng, values: Any) -> Any:
    """One of several values."""
    return values[int(rng.integers(len(values)))]


def _picture(rng: Rng) -> np.ndarray:
    height, width = (int(each) for each in rng.integers(1, MAX_SIDE, 2))
    if is_thin(height, width) and rng.random() < 0.9:
        height = width
    if rng.random() < 0.5:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    tile = rng.integers(0, 256, (2, 2, 3), np.uint8)
    return cv2.resize(tile, (width, height), interpolation=cv2.INTER_LINEAR)


# Image


def image_message(rng: Rng) -> SimpleNamespace:
    """A sound Image of any encoding, padding and byte order."""
    rgb = _picture(rng)
    encoding = pick(rng, sorted(ENCODINGS))
    sample, channels = ENCODINGS[encoding]
    if encoding in ("nv12", "nv21") or encoding.startswith(("yu", "uyvy", "bayer")):
        height, width = (max(2, side // 2 * 2) for side in rgb.shape[:2])
        rows = height * 3 // 2 if encoding in ("nv12", "nv21") else height
        stored = rng.integers(0, 256, (rows, width * channels), np.uint8).astype(sample)
    else:
        height, width = rgb.shape[:2]
        stored = _stored(rgb, encoding).reshape(height, -1)
    big = bool(rng.random() < 0.3)
    raw = stored.astype(np.dtype(sample).newbyteorder(">" if big else "<"))
    data = np.ascontiguousarray(raw).view(np.uint8).reshape(len(stored), -1)
    data = np.pad(data, ((0, 0), (0, int(rng.integers(0, 9)) * int(rng.random() < 0.4))))
    return SimpleNamespace(
        encoding=encoding,
        height=height,
        width=width,
        step=data.shape[1],
        is_bigendian=int(big),
        data=data.tobytes(),
    )


def _stored(rgb: np.ndarray, encoding: str) -> np.ndarray:
    layout = encoding.removesuffix("16").removesuffix("8")
    channels = dict(zip("rgba", [*np.moveaxis(rgb, -1, 0), rgb[..., 0]], strict=True))
    planes = np.stack([channels[c] for c in ("r" if layout == "mono" else layout)], -1)
    return planes.astype(np.uint16) * 257 if encoding.endswith("16") else planes


def _spoil_image(rng: Rng, message: SimpleNamespace) -> None:
    match int(rng.integers(7)):
        case 0:
            setattr(message, pick(rng, ("height", "width", "step")), pick(rng, NUMBERS))
        case 1:
            name = pick(rng, ("height", "width", "step"))
            changed = getattr(message, name) + pick(rng, (-1, 1))
            setattr(message, name, min(max(0, changed), 2**32 - 1))
        case 2:
            message.data = message.data[: int(rng.integers(0, len(message.data) + 1))]
        case 3:
            message.data += bytes(int(rng.integers(1, 99)))
        case 4:
            message.encoding = pick(rng, (*sorted(ENCODINGS), *_ODD_ENCODINGS))
        case 5:
            message.height, message.width = message.width, message.height
        case 6:
            message.is_bigendian = int(rng.integers(0, 256))


def spoilt_image(rng: Rng) -> SimpleNamespace:
    """An Image of which a third are sound."""
    message = image_message(rng)
    for _ in range(int(rng.integers(0, 3))):
        _spoil_image(rng, message)
    return message


def reference_rgb(message: SimpleNamespace) -> np.ndarray | None:
    """The pixels of an Image whose layout is one of `LAYOUTS`, decoded another way; None where
    it must be refused."""
    height, width, step = message.height, message.width, message.step
    layout = _layout(message)
    wide = message.encoding.endswith("16")
    channels = 1 if layout == "mono" else len(layout)
    row = width * channels * (2 if wide else 1)
    sound = (
        min(height, width) > 0 and height * width <= FUZZED_PIXELS and not is_thin(height, width)
    )
    if not sound or step < row or len(message.data) != height * step:
        return None
    kind = (">u2" if message.is_bigendian else "<u2") if wide else "u1"
    lines = [
        np.frombuffer(message.data, kind, width * channels, line * step) for line in range(height)
    ]
    values = np.stack(lines).reshape(height, width, channels).astype(np.float64)
    if wide:
        values = np.round(values / 257)
    order = [0, 0, 0] if layout == "mono" else [layout.index(c) for c in "rgb"]
    return values[..., order].astype(np.uint8)


def _layout(message: SimpleNamespace) -> str:
    return str(message.encoding).removesuffix("16").removesuffix("8")


def image_case(rng: Rng, index: int, predictor: Predictor) -> Case:
    """An Image."""
    message = spoilt_image(rng)
    known = _layout(message) in LAYOUTS
    reference = reference_rgb(message) if known else None

    def check(found: tuple[np.ndarray, Any]) -> str | None:
        rgb, maps = found
        if rgb.shape != (message.height, message.width, 3) or rgb.dtype != np.uint8:
            return f"{message.width} x {message.height} became {rgb.dtype} {rgb.shape}"
        if reference is None:
            return f"what does not fit was taken: {message.encoding}" if known else None
        # 16 bits are rounded to 8 by another way than the reference's.
        if np.abs(rgb.astype(int) - reference).max() > (1 if message.encoding[-2:] == "16" else 0):
            return f"other pixels than the reference's in {message.encoding}"
        exact = message.encoding[-2:] != "16"
        return _compare(predictor, reference if exact else rgb, maps)

    run = _answering(predictor, index, lambda: rgb_from_image(message, FUZZED_PIXELS))
    return Case(run, check, sound=reference is not None)


def _answering(
    predictor: Predictor, index: int, convert: Callable[[], np.ndarray]
) -> Callable[[], tuple[np.ndarray, Any]]:
    def run() -> tuple[np.ndarray, Any]:
        rgb = convert()
        return rgb, predictor.predict(rgb) if index % PREDICTED == 0 else None

    return run


def _compare(predictor: Predictor, reference: np.ndarray, maps: Any) -> str | None:
    """Problem of a prediction, compared with that of a copy of the reference's pixels."""
    if maps is None:
        return None
    expected = predictor.predict(reference.copy())
    for name in predictor.available_maps - {"probabilities"}:
        a, b = getattr(maps, name), getattr(expected, name)
        if a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            return f"the map {name} is another than the predictor's"
    return None


# CompressedImage


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def _encoded(rng: Rng, rgb: np.ndarray) -> bytes:
    options: list[int] = []
    suffix = pick(rng, (".jpg", ".jpg", ".png", ".webp", ".tiff"))
    if suffix == ".jpg":
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(rng.random() < 0.3)]
        options += [cv2.IMWRITE_JPEG_RST_INTERVAL, int(rng.integers(0, 4))]
    pixels = rgb[..., 0] if rng.random() < 0.2 else rgb[..., ::-1]
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(pixels), options)[1])


def _bombs() -> list[bytes]:
    """Files that declare more than they hold, and formats that are not read."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    png = bytes(cv2.imencode(".png", picture)[1])
    jpeg = bytes(cv2.imencode(".jpg", picture)[1])
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(4_000_000), 9))
    webp = b"WEBPVP8X\x0a\0\0\0\2\0\0\0" + bytes(6)
    tiff = struct.pack("<IH", 8, 4)
    for tag, value in ((256, 4), (257, 4), (322, 60_000), (323, 60_000)):
        tiff += struct.pack("<HHII", tag, 4, 1, value)
    return [
        png[:33] + b"\xff\xff\xff\x00IDAT",  # OpenCV allocates the declared 4 GB
        png[:8] + png_chunk(b"IHDR", huge) + png[33:],
        png[:33] + text * 60 + png[33:],
        png[:33] + png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + png[33:],
        png[:33] + png_chunk(b"tEXt", b"") * 70_000 + png[33:],
        jpeg[:-2] + b"\xff\xda\0\2" * 5000 + b"\xff\xd9",
        b"\xff\xd8" + b"\xff\xe0\0\2" * 80_000 + jpeg[2:],
        b"RIFF" + struct.pack("<I", len(webp)) + webp,
        b"II*\0" + tiff,
        b"GIF89a\xff\xff\xff\xff" + bytes(50),
        b"BM" + bytes(200),
        b"DDS |" + bytes(123),
        b"\0\0\0\x1cftypavif" + bytes(100),
        b"",
        b"text",
    ]


BOMBS = _bombs()


def _spoil_bytes(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    match int(rng.integers(5)):
        case 0:
            for place in rng.integers(0, len(changed), int(rng.integers(1, 9))):
                changed[place] = rng.integers(256)
        case 1:
            del changed[int(rng.integers(0, len(changed))) :]
        case 2:  # the header's sizes
            place = int(rng.integers(0, min(len(changed), 200)))
            changed[place : place + 4] = struct.pack(">I", pick(rng, NUMBERS))
        case 3:
            begin, end = sorted(int(each) for each in rng.integers(0, len(changed), 2))
            changed[begin:end] = b""
        case 4:
            begin, end = sorted(int(each) for each in rng.integers(0, len(changed), 2))
            changed[begin:begin] = changed[begin:end] * 3
    return bytes(changed)


def spoilt_compressed(rng: Rng, index: int) -> tuple[SimpleNamespace, bool]:
    """A CompressedImage, and whether it is spoilt; the first ones are `BOMBS`."""
    rgb = _picture(rng)
    data = BOMBS[index] if index < len(BOMBS) else _encoded(rng, rgb)
    spoilt = index < len(BOMBS)
    while rng.random() < 0.5:
        data, spoilt = _spoil_bytes(rng, data) if data else data, True
    form = pick(rng, ("jpeg", "rgb8; jpeg compressed bgr8", "", "compressedDepth", "y" * 99_999))
    message = SimpleNamespace(data=data, format=form)
    return message, spoilt


def compressed_case(rng: Rng, index: int, predictor: Predictor) -> Case:
    """A CompressedImage."""
    message, spoilt = spoilt_compressed(rng, index)
    reference = None if spoilt else reference_of_file(message)

    def check(found: tuple[np.ndarray, Any]) -> str | None:
        pixels, maps = found
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            return f"the pixels are {pixels.dtype} {pixels.shape}"
        if pixels.shape[0] * pixels.shape[1] > FUZZED_PIXELS or is_thin(*pixels.shape[:2]):
            return f"a picture of {pixels.shape} was taken"
        if reference is not None and not np.array_equal(reference, pixels):
            return "other pixels than the reference's"
        return _compare(predictor, pixels if reference is None else reference, maps)

    run = _answering(predictor, index, lambda: rgb_from_compressed(message, FUZZED_PIXELS))
    return Case(run, check, sound=reference is not None)


def reference_of_file(message: SimpleNamespace) -> np.ndarray | None:
    """The pixels of a sound CompressedImage; None where it must be refused all the same."""
    image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    if image is None or is_thin(*image.shape[:2]) or "compressedDepth" in message.format:
        return None
    return np.ascontiguousarray(image[..., ::-1])


# Over DDS


def node_case(
    rng: Rng,
    index: int,
    predictor: Predictor,
    send: Callable[[SimpleNamespace], np.ndarray],
    compressed: bool,
) -> Case:
    """An Image or CompressedImage to a running node, which publishes labels or counts it."""
    reference: np.ndarray | None = None
    if compressed:
        message, spoilt = spoilt_compressed(rng, index)
        reference = None if spoilt else reference_of_file(message)
    else:
        message = spoilt_image(rng)
        if message.encoding in [f"{layout}8" for layout in LAYOUTS]:
            reference = reference_rgb(message)

    def check(labels: np.ndarray) -> str | None:
        if reference is None:
            return None
        expected = predictor.predict(reference, maps={"labels"}).labels
        return None if np.array_equal(labels, expected) else "other labels than the predictor's"

    return Case(lambda: send(message), check, sound=reference is not None)


def valid_case(
    predictor: Predictor, send: Callable[[SimpleNamespace], np.ndarray], compressed: bool
) -> Case:
    """A sound message to a running node, which must publish the predictor's labels."""
    rgb = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    if compressed:
        data = bytes(cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1])
        message = SimpleNamespace(data=data, format="rgb8; png compressed bgr8")
    else:
        message = SimpleNamespace(
            encoding="rgb8", height=32, width=48, step=144, is_bigendian=0, data=rgb.tobytes()
        )

    def check(labels: np.ndarray) -> str | None:
        expected = predictor.predict(rgb, maps={"labels"}).labels
        return None if np.array_equal(labels, expected) else "other labels than the predictor's"

    return Case(lambda: send(message), check, sound=True)
