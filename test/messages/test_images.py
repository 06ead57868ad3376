"""Images of every encoding become RGB, and broken ones an error that says what is wrong."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu_perception.images import MAX_PIXELS
from emu_perception.messages.errors import BadInput, InputError
from emu_perception.messages.images import (
    ENCODINGS,
    rgb_from_compressed,
    rgb_from_image,
)
from emu_perception.ros.statistics import Statistics
from emu_perception.text import LINE_LIMIT

COLOR = (200, 60, 110)
LAYOUTS = ("rgb", "bgr", "rgba", "bgra")
BAYER = ("rggb", "bggr", "gbrg", "grbg")


class CvBridgeStandIn:
    """Refuses what the real cv_bridge refuses."""

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str = "passthrough") -> np.ndarray:
        if message.encoding in ("uyvy", "yuyv"):
            raise ValueError(f"Unrecognized image encoding [{message.encoding}]")
        raise KeyError(16)  # the type of CV_8UC3 where it was built for another OpenCV


@pytest.fixture(autouse=True)
def _cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("cv_bridge")
    module.CvBridge = CvBridgeStandIn
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def widened(values: np.ndarray) -> np.ndarray:
    """The same in 16 bit, within half a step; bytes in the wrong order are far off."""
    return values.astype(np.uint16) << 8 | (values ^ 0x80)


def stored(encoding: str, height: int, width: int) -> np.ndarray:
    """An image of one colour as its encoding stores it, `(rows, samples)`."""
    base = encoding.removesuffix("16").removesuffix("8")
    values = dict(zip("rgba", (*COLOR, 255), strict=True))
    gray, u, v = (int(x) for x in cv2.cvtColor(np.uint8([[COLOR]]), cv2.COLOR_RGB2YUV)[0, 0])
    if base in LAYOUTS:
        block = [[values[c] for c in base]]
    elif base == "mono":
        block = [[gray]]
    elif base.startswith("bayer_"):
        pattern = [values[c] for c in base.removeprefix("bayer_")]
        block = [pattern[:2], pattern[2:]]
    else:
        # Limited range, as cameras send it (ITU-R BT.601).
        red, green, blue = COLOR
        y = round(16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256)
        u = round(128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256)
        v = round(128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256)
        if base in ("nv12", "nv21"):
            chroma = [u, v] if base == "nv12" else [v, u]
            rows = np.full((height, width), y, np.uint8)
            return np.concatenate([rows, np.tile(np.uint8(chroma), (height // 2, width // 2))])
        block = [[u, y, v, y]] if base in ("yuv422", "uyvy") else [[y, u, y, v]]
    samples = width * ENCODINGS[encoding][1]
    array = np.array(block, np.uint8)
    repeats = -(-height // array.shape[0]), -(-samples // array.shape[1])
    tiled = np.tile(array, repeats)[:height, :samples]
    return widened(tiled) if encoding.endswith("16") else tiled


def image(
    encoding: str, samples: np.ndarray, height: int, width: int, padding: int = 0, big: bool = False
) -> SimpleNamespace:
    rows = samples.astype(samples.dtype.newbyteorder(">" if big else "<"))
    rows = np.ascontiguousarray(rows).view(np.uint8).reshape(len(samples), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xA5)
    return SimpleNamespace(
        encoding=encoding,
        height=height,
        width=width,
        step=rows.shape[1],
        is_bigendian=int(big),
        data=rows.tobytes(),
    )


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big", [False, True])
def test_every_encoding_shows_its_colour(encoding: str, padding: int, big: bool) -> None:
    height, width = 8, 10
    rgb = rgb_from_image(image(encoding, stored(encoding, height, width), 8, 10, padding, big))
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    expected = COLOR
    if encoding.startswith("mono"):
        expected = (cv2.cvtColor(np.uint8([[COLOR]]), cv2.COLOR_RGB2GRAY)[0, 0],) * 3
    # 3: what limited-range YUV loses to rounding.
    assert np.abs(rgb.astype(int) - np.array(expected, int)).max() <= 3


def test_there_are_all_encodings_that_cameras_send() -> None:
    promised = {f"{layout}{bits}" for layout in (*LAYOUTS, "mono") for bits in (8, 16)}
    promised |= {f"bayer_{order}{bits}" for order in BAYER for bits in (8, 16)}
    promised |= {"yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12", "nv21"}
    assert set(ENCODINGS) == promised


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    encoding=st.sampled_from([f"{n}{b}" for n in (*LAYOUTS, "mono") for b in (8, 16)]),
    height=st.integers(1, 9),
    width=st.integers(1, 16),
    padding=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pixels_stay_in_place_at_any_size_and_padding(
    encoding: str, height: int, width: int, padding: int, big: bool, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    base = encoding.removesuffix("16").removesuffix("8")
    if base == "mono":
        rgb[:] = rgb[..., :1]
    channels = dict(zip("rgba", (*np.moveaxis(rgb, -1, 0), rgb[..., 0]), strict=True))
    samples = np.stack([channels[c] for c in (base if base != "mono" else "r")], -1)
    if encoding.endswith("16"):
        samples = widened(samples)
    message = image(encoding, samples.reshape(height, -1), height, width, padding, big)
    assert np.abs(rgb_from_image(message).astype(int) - rgb).max() <= 1


def test_packed_rgb_is_not_copied() -> None:
    message = image("rgb8", stored("rgb8", 4, 6), 4, 6)
    assert np.shares_memory(rgb_from_image(message), np.frombuffer(message.data, np.uint8))


def good_image(**changes: Any) -> SimpleNamespace:
    message = image("rgb8", stored("rgb8", 4, 6), 4, 6)
    message.__dict__.update(changes)
    return message


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (good_image(encoding="32FC1"), BadInput.ENCODING, "'32FC1', expected one of .*mono8.*rgb8"),
        (good_image(encoding=""), BadInput.ENCODING, "encoding is ''"),
        (good_image(encoding="RGB8"), BadInput.ENCODING, "'RGB8'"),
        (good_image(step=17), BadInput.LAYOUT, "step is 17 bytes, but 6 pixels of 'rgb8' need 18"),
        (good_image(step=0), BadInput.LAYOUT, "step is 0"),
        (good_image(step=20), BadInput.LAYOUT, "72 bytes of data, expected 80: 4 rows of 20"),
        (good_image(data=bytes(71)), BadInput.LAYOUT, "71 bytes of data, expected 72"),
        (good_image(data=bytes(73)), BadInput.LAYOUT, "73 bytes of data, expected 72"),
        (good_image(data=b""), BadInput.LAYOUT, "0 bytes of data, expected 72"),
        (good_image(encoding="rgb16"), BadInput.LAYOUT, "need 36"),
        (good_image(width=0), BadInput.EMPTY, "0 x 4 pixels: it is empty"),
        (good_image(height=0, data=b""), BadInput.EMPTY, "6 x 0 pixels"),
        (
            good_image(width=2**32 - 1, height=2**32 - 1, step=2**32 - 1),
            BadInput.TOO_LARGE,
            f"{MAX_PIXELS} are allowed",
        ),
        (good_image(height=1, width=17, step=51), BadInput.PROPORTIONS, "17 x 1 pixels.*16:1"),
        (good_image(height=65, width=4), BadInput.PROPORTIONS, "4 x 65 pixels"),
        (
            good_image(encoding="yuv422", width=9, step=18),
            BadInput.ENCODING,
            "9 x 4 image in 'yuv422' cannot be converted to RGB",
        ),
        (
            good_image(encoding="nv12", width=9, step=12),
            BadInput.ENCODING,
            "9 x 4 image in 'nv12' cannot be converted",
        ),
    ],
)
def test_broken_image(message: SimpleNamespace, kind: BadInput, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        rgb_from_image(message, MAX_PIXELS)
    assert caught.value.kind is kind


def test_the_size_limit_is_inclusive() -> None:
    assert rgb_from_image(good_image(), max_pixels=24).shape == (4, 6, 3)
    with pytest.raises(InputError, match=r"6 x 4 = 24 pixels, 23 are allowed"):
        rgb_from_image(good_image(), max_pixels=23)


# Compressed images


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], -1).astype(np.uint8)


def encode(suffix: str, rgb: np.ndarray) -> bytes:
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    pixels = cv2.cvtColor(rgb, order[rgb.shape[2]]) if rgb.ndim == 3 else rgb
    found, data = cv2.imencode(suffix, pixels)
    assert found
    return data.tobytes()


def compressed(data: bytes, kind: str = "rgb8; jpeg compressed bgr8") -> SimpleNamespace:
    return SimpleNamespace(data=data, format=kind)


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".png", 0), (".tiff", 0), (".jpg", 12), (".webp", 12)]
)
def test_compressed(suffix: str, tolerance: int) -> None:
    rgb = rgb_from_compressed(compressed(encode(suffix, smooth())))
    assert rgb.shape == (40, 56, 3)
    assert np.abs(rgb.astype(int) - smooth()).max() <= tolerance


def test_compressed_grey_alpha_and_16_bit() -> None:
    gray = smooth()[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=2)
    alpha = np.dstack([smooth(), np.full((40, 56), 7, np.uint8)])
    assert np.array_equal(rgb_from_compressed(compressed(encode(".png", gray))), expected)
    assert np.array_equal(rgb_from_compressed(compressed(encode(".png", alpha))), smooth())
    wide = rgb_from_compressed(compressed(encode(".png", gray.astype(np.uint16) * 257)))
    assert wide.dtype == np.uint8
    assert np.abs(wide.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (compressed(b""), BadInput.EMPTY, "has no data"),
        (
            compressed(b"no picture", "jpeg"),
            BadInput.CORRUPT,
            r"10 bytes, format 'jpeg'.*: not an image file",
        ),
        (compressed(bytes(1000)), BadInput.CORRUPT, "not an image file"),
        (compressed(encode(".jpg", smooth())[:-200]), BadInput.CORRUPT, "end-of-image marker"),
        (compressed(encode(".jpg", smooth())[:100]), BadInput.CORRUPT, "compressed image"),
        (compressed(encode(".png", smooth())[:200], "png"), BadInput.CORRUPT, "format 'png'"),
        (
            compressed(encode(".png", smooth()), "16UC1; compressedDepth png"),
            BadInput.ENCODING,
            "holds depth, expected a colour picture",
        ),
    ],
)
def test_broken_compressed_image(message: SimpleNamespace, kind: BadInput, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        rgb_from_compressed(message)
    assert caught.value.kind is kind


def test_a_small_file_that_unpacks_to_a_huge_picture_is_refused_unread() -> None:
    data = encode(".png", np.zeros((4200, 4200), np.uint8))
    with pytest.raises(InputError, match=r"4200 x 4200.*max_image_pixels") as caught:
        rgb_from_compressed(compressed(data, "png"), MAX_PIXELS)
    assert caught.value.kind is BadInput.TOO_LARGE
    # Recordings have the same limit.
    with pytest.raises(InputError, match="4200 x 4200"):
        rgb_from_compressed(compressed(data, "png"))
    assert rgb_from_compressed(compressed(data, "png"), 1 << 25).shape == (4200, 4200, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_part_of_a_picture_is_none(suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    data = encode(suffix, noise)
    with pytest.raises(InputError, match=r"^the compressed image \(\d+ bytes") as caught:
        rgb_from_compressed(compressed(data[: int(share * len(data))]))
    assert caught.value.kind is BadInput.CORRUPT
    assert " object at 0x" not in str(caught.value)


@settings(max_examples=60)
@given(
    suffix=st.sampled_from([".jpg", ".png"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
)
def test_damage_ends_in_a_picture_or_a_readable_error(
    suffix: str, cut: float, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(encode(suffix, smooth()))
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        rgb = rgb_from_compressed(compressed(bytes(data[: int(cut * len(data))])))
    except InputError:
        return
    assert rgb.ndim == 3
    assert rgb.dtype == np.uint8


def test_a_hostile_encoding_is_not_quoted_whole() -> None:
    encoding = "\x1b[2J" + "x" * 1_000_000
    message = SimpleNamespace(
        encoding=encoding, height=1, width=1, step=3, is_bigendian=0, data=b"rgb"
    )
    with pytest.raises(InputError) as refused:
        rgb_from_image(message)
    assert len(str(refused.value)) < 700 and "\x1b" not in str(refused.value)
    line = Statistics().bad(refused.value.kind, f"/image:\n{refused.value}")
    assert line is not None and "\n" not in line and len(line) <= LINE_LIMIT
