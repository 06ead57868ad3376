"""Image files from outside: only whole ones of known formats reach a decoder."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.images import (
    COLOR,
    STORED,
    UPRIGHT_COLOR,
    ImageFileError,
    decode_image,
    open_image,
    read_image_file,
    write_png,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
SUFFIXES = (".png", ".jpg", ".webp", ".tiff")


def encode(suffix: str, pixels: np.ndarray = PIXELS, *options: int) -> bytes:
    good, data = cv2.imencode(suffix, pixels, list(options))
    assert good
    return data.tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunks(*added: bytes) -> bytes:
    """A PNG with further chunks after its header."""
    whole = encode(".png")
    return whole[:33] + b"".join(added) + whole[33:]


PNG_HEADER = encode(".png")[:33]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(37, 53, 3), (1, 1, 3), (64, 48)])
def test_whole_files_are_decoded_as_opencv_does(suffix: str, shape: tuple[int, ...]) -> None:
    pixels = np.resize(PIXELS, shape)
    data = encode(suffix, pixels)
    file = open_image(data)
    assert (file.height, file.width) == shape[:2]
    for flags in (COLOR, STORED):
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        assert np.array_equal(decode_image(data, flags), expected)


def test_variants_of_the_formats_are_read() -> None:
    depth = np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30
    assert np.array_equal(decode_image(encode(".png", depth), STORED), depth)
    assert np.array_equal(decode_image(encode(".tiff", depth), STORED), depth)
    progressive = encode(".jpg", PIXELS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    restarts = encode(".jpg", PIXELS, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    lossless = encode(".webp", PIXELS, cv2.IMWRITE_WEBP_QUALITY, 101)
    for data in (progressive, restarts, lossless):
        assert decode_image(data).shape == PIXELS.shape
    transparent = np.dstack([PIXELS, PIXELS[..., 0]])
    assert np.array_equal(decode_image(encode(".png", transparent), STORED), transparent)
    # Cameras pad the buffer of a JPEG.
    assert np.array_equal(decode_image(encode(".jpg") + bytes(500)), decode_image(encode(".jpg")))


def test_a_png_keeps_only_what_its_pixels_need() -> None:
    text = chunk(b"tEXt", b"Comment\0hello")
    file = open_image(with_chunks(text, chunk(b"gAMA", struct.pack(">I", 45455))))
    assert bytes(file.data) == encode(".png")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        # OpenCV allocates the declared length: 45 bytes would take 4 GB.
        (PNG_HEADER + b"\xff\xff\xff\x00IDAT", "declares 4294967040 bytes, 0 are left"),
        (PNG_HEADER, "cut off"),
        (encode(".png")[:-1], "cut off"),
        (encode(".png")[:33] + chunk(b"IEND", b""), "expected one header, and pixels"),
        (encode(".png").replace(b"IHDR", b"IHDX"), "does not begin with its header"),
        (with_chunks(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), "animated"),
        (with_chunks(*[chunk(b"tEXt", b"")] * 70_000), "more than 65536 chunks"),
        (encode(".jpg")[:-2], "no end-of-image marker"),
        (encode(".jpg")[:100], "cut off"),
        (encode(".jpg")[:2] + b"\xff\xc3\0\4\0\0" + encode(".jpg")[2:], "marker ffc3"),
        (encode(".jpg")[:-2] + b"\xff\xda\0\2" * 70 + b"\xff\xd9", "more than 64 scans"),
        (b"\xff\xd8\xff\xda\0\2\xff\xd9", "pixels come before its size"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x05\x01\1\x11\0", "5 x 0 pixels: it is empty"),
        (encode(".webp")[:-4], "cut off"),
        (b"RIFF\x04\0\0\0WEBP", "expected one image"),
        (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0\0\0\0\0\0\0", "animated"),
        (b"II*\0\xff\xff\xff\x00", "cut off"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "0 x 0 pixels: it is empty"),
        (b"", "not an image file that can be read"),
        (b"BM" + bytes(100), "not an image file"),
        (b"DDS |" + bytes(123), "not an image file"),
        (b"\0\0\0\x1cftypavif" + bytes(100), "not an image file"),
    ],
)
def test_what_is_no_whole_image_file_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageFileError, match=words) as raised:
        decode_image(data)
    assert len(str(raised.value)) <= 300 and "\n" not in str(raised.value)


def tiff(**changed: tuple[int, int, int]) -> bytes:
    """A grey TIFF of 4 x 4 pixels; fields by name: type, count, value."""
    fields = {
        "width": (256, 4, 1, 4),
        "height": (257, 4, 1, 4),
        "bits": (258, 3, 1, 8),
        "compression": (259, 3, 1, 1),
        "colours": (262, 3, 1, 1),
        "offsets": (273, 4, 1, 200),
        "samples": (277, 3, 1, 1),
        "rows": (278, 4, 1, 4),
        "counts": (279, 4, 1, 16),
        "tile_width": (322, 4, 0, 0),
        "tile_height": (323, 4, 0, 0),
    }
    fields |= {name: (fields[name][0], *value) for name, value in changed.items()}
    used = [field for field in fields.values() if field[2]]
    entries = b"".join(struct.pack("<HHII", *field) for field in used)
    head = b"II*\0" + struct.pack("<IH", 8, len(used)) + entries
    return head.ljust(200, b"\0") + bytes(range(16))


def test_tiffs_are_read_within_limits() -> None:
    assert np.array_equal(decode_image(tiff(), STORED), np.arange(16).reshape(4, 4))
    for changed, words in (
        ({"tile_width": (4, 1, 1 << 20)}, "tiles are larger"),
        ({"compression": (3, 1, 7)}, "has the compression 7, expected none, LZW"),
        ({"samples": (3, 1, 200)}, "other pixels"),
        ({"bits": (3, 1, 64)}, "other pixels"),
        ({"counts": (4, 2**30, 20)}, "field 279 ends beyond the data"),
        ({"width": (4, 1, 1 << 30)}, "1073741824 x 4 pixels, at most"),
    ):
        with pytest.raises(ImageFileError, match=words):
            decode_image(tiff(**changed), STORED)


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    large = PNG_HEADER.replace(struct.pack(">II", 53, 37), struct.pack(">II", 60_000, 60_000))
    data = large + encode(".png")[33:]
    with pytest.raises(ImageFileError, match="60000 x 60000 pixels, at most 67108864 are read"):
        decode_image(data)
    with pytest.raises(ImageFileError, match="53 x 37 pixels, at most 1000"):
        decode_image(encode(".png"), max_pixels=1000)


_PEAK = """
import sys
from pathlib import Path
from emu_perception.images import ImageFileError, decode_image
decode_image(Path(sys.argv[1]).read_bytes())  # what loading takes
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
for path in sys.argv[2:]:
    try:
        decode_image(Path(path).read_bytes())
    except ImageFileError:
        pass
print(peak() - before)
"""


def test_memory_follows_the_pixels_whatever_a_file_declares(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_000_000), 9))
    bombs = {
        "plain": encode(".png"),
        "chunk": PNG_HEADER + b"\xff\xff\xff\x00IDAT",
        "text": with_chunks(*[text] * 60),  # 420 MB of text in 400 KB
        "tiles": tiff(tile_width=(4, 1, 30_000), tile_height=(4, 1, 30_000)),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", _PEAK, *(str(tmp_path / name) for name in bombs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000, "kB beyond that of a small picture"


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from(SUFFIXES),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    left=st.floats(0, 1),
)
def test_damaged_files_are_refused_or_decoded(
    suffix: str, place: float, value: int, left: float
) -> None:
    data = bytearray(encode(suffix))
    data[int(place * len(data))] = value
    whole = decode_image(encode(suffix)).shape
    with suppress(ImageFileError):
        image = decode_image(bytes(data), max_pixels=1 << 16)
        assert image.dtype == np.uint8 and image.size <= 3 << 16
    shortened = encode(suffix)[: int(left * len(data))]
    if len(shortened) < len(data):
        with suppress(ImageFileError):
            assert decode_image(shortened).shape == whole
            assert suffix == ".tiff"  # its directory may come before the pixels


def test_files_on_disk_are_written_whole_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.png"
    write_png(path, PIXELS)
    assert np.array_equal(read_image_file(path)[..., ::-1], PIXELS)
    write_png(path, PIXELS[..., 0])
    assert np.array_equal(decode_image(path.read_bytes(), STORED), PIXELS[..., 0])
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]
    path.write_text("text")
    with pytest.raises(ImageFileError, match=r"a\.png: not an image file"):
        read_image_file(path)


def test_orientation_is_followed_where_it_is_asked_for() -> None:
    turned = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    whole = encode(".jpg")
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned + whole[2:]
    assert decode_image(data, COLOR).shape == (37, 53, 3)
    assert decode_image(data, UPRIGHT_COLOR).shape == (53, 37, 3)
