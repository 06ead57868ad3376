"""Convert image messages to RGB arrays.

Works on every object with the fields of sensor_msgs/Image or CompressedImage: rclpy's messages and
those that rosbags reads. OpenCV converts the colours, without cv_bridge: cv_bridge refuses `uyvy`
and `yuyv`, ignores padding in some cases and fails with NumPy or OpenCV versions that it was not
built for. Size, step and data length are checked before anything is read.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from emu_perception.images import MAX_ASPECT, MAX_PIXELS, ImageFileError, is_thin, open_image
from emu_perception.messages.errors import BadInput, InputError
from emu_perception.text import one_line

_TO_RGB: dict[str, tuple[int | None, int]] = {
    "rgb": (None, 3),
    "bgr": (cv2.COLOR_BGR2RGB, 3),
    "rgba": (cv2.COLOR_RGBA2RGB, 4),
    "bgra": (cv2.COLOR_BGRA2RGB, 4),
    "mono": (cv2.COLOR_GRAY2RGB, 1),
    # OpenCV names a Bayer pattern by its second row's second and third pixels.
    "bayer_rggb": (cv2.COLOR_BayerBG2RGB, 1),
    "bayer_bggr": (cv2.COLOR_BayerRG2RGB, 1),
    "bayer_gbrg": (cv2.COLOR_BayerGR2RGB, 1),
    "bayer_grbg": (cv2.COLOR_BayerGB2RGB, 1),
}
"""Layout of 8 and 16 bit encodings: OpenCV's conversion and samples per pixel."""
_YUV_TO_RGB: dict[str, tuple[int | None, int]] = {
    "yuv422": (cv2.COLOR_YUV2RGB_UYVY, 2),
    "uyvy": (cv2.COLOR_YUV2RGB_UYVY, 2),
    "yuv422_yuy2": (cv2.COLOR_YUV2RGB_YUY2, 2),
    "yuyv": (cv2.COLOR_YUV2RGB_YUY2, 2),
    "nv12": (cv2.COLOR_YUV2RGB_NV12, 1),
    "nv21": (cv2.COLOR_YUV2RGB_NV21, 1),
}
_HALF_SIZE_COLOR = ("nv12", "nv21")
"""Half as many rows of colour follow the rows of brightness."""
_CONVERSIONS = {
    **{f"{name}8": to_rgb for name, to_rgb in _TO_RGB.items()},
    **{f"{name}16": to_rgb for name, to_rgb in _TO_RGB.items()},
    **_YUV_TO_RGB,
}
ENCODINGS: dict[str, tuple[str, int]] = {
    name: ("u2" if name.endswith("16") else "u1", samples)
    for name, (_, samples) in _CONVERSIONS.items()
}
"""Encodings that can be shown as RGB: sample type and samples per pixel of a row."""
MAP_ENCODINGS = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2", "32FC1": "f4"}
"""Encodings of Images that hold one number per pixel: class ids, depth, uncertainty."""


def rgb_from_image(message: Any, max_pixels: float = MAX_PIXELS) -> np.ndarray:
    """An Image as `(H, W, 3)` uint8 RGB; rgb8 without padding is not copied.

    Raises:
        InputError: its encoding, size, step or data cannot be used.
    """
    encoding = message.encoding
    if encoding not in ENCODINGS:
        raise InputError(
            BadInput.ENCODING,
            f"the image's encoding is '{one_line(encoding, 40)}', expected one of "
            f"{', '.join(sorted(ENCODINGS))}",
        )
    pixels = _pixels(message, max_pixels)
    half_rows = encoding in _HALF_SIZE_COLOR and message.height % 2
    if encoding in _YUV_TO_RGB and (message.width % 2 or half_rows):
        # OpenCV 4.6 reads beyond the last column instead of refusing it.
        raise InputError(
            BadInput.ENCODING,
            f"a {message.width} x {message.height} image in '{encoding}' cannot be converted to "
            "RGB: pixels share colours in pairs, an odd size has half a pair",
        )
    conversion = _CONVERSIONS[encoding][0]
    if conversion is not None:
        try:
            pixels = cv2.cvtColor(pixels, conversion)
        except cv2.error as error:
            raise InputError(
                BadInput.ENCODING,
                f"a {message.width} x {message.height} image in '{encoding}' cannot be converted "
                f"to RGB: {' '.join(str(error).split())}",
            ) from error
    if pixels.dtype == np.uint16:
        return cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return pixels


def _pixels(message: Any, max_pixels: float) -> np.ndarray:
    """`(H, W)` or `(H, W, C)` as stored, packed, in this machine's byte order."""
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    check_size(height, width, max_pixels)
    sample, channels = ENCODINGS[encoding]
    row = width * channels * np.dtype(sample).itemsize
    if step < row:
        raise InputError(
            BadInput.LAYOUT,
            f"the image's step is {step} bytes, but {width} pixels of '{encoding}' need {row}",
        )
    rows = height * 3 // 2 if encoding in _HALF_SIZE_COLOR else height
    data = np.frombuffer(message.data, np.uint8)
    if data.size != rows * step:
        raise InputError(
            BadInput.LAYOUT,
            f"the image has {data.size} bytes of data, expected {rows * step}: {rows} rows of "
            f"{step} bytes",
        )
    order = ">" if message.is_bigendian else "<"
    packed = np.ascontiguousarray(data.reshape(rows, step)[:, :row]).view(order + sample)
    packed = packed.astype(packed.dtype.newbyteorder("="), copy=False)
    return packed.reshape((rows, width, channels) if channels > 1 else (rows, width))


def check_size(height: int, width: int, max_pixels: float) -> None:
    """InputError for an image without pixels, with too many, or that is too thin."""
    if height < 1 or width < 1:
        raise InputError(BadInput.EMPTY, f"the image is {width} x {height} pixels: it is empty")
    if height * width > max_pixels:
        raise InputError(
            BadInput.TOO_LARGE,
            f"the image is {width} x {height} = {height * width} pixels, {max_pixels} are allowed "
            "(the node's parameter max_image_pixels)",
        )
    if is_thin(height, width):
        raise InputError(
            BadInput.PROPORTIONS,
            f"the image is {width} x {height} pixels, expected proportions of at most "
            f"{MAX_ASPECT}:1",
        )


def rgb_from_compressed(message: Any, max_pixels: float = MAX_PIXELS) -> np.ndarray:
    """A CompressedImage (JPEG, PNG, WebP, TIFF) as `(H, W, 3)` uint8 RGB.

    Raises:
        InputError: its data is no complete picture, or too large a one.
    """
    data = np.frombuffer(message.data, np.uint8)
    if data.size == 0:
        raise InputError(BadInput.EMPTY, "the compressed image has no data")
    what = f"the compressed image ({data.size} bytes, format '{message.format[:40]}')"
    if "compressedDepth" in message.format:
        raise InputError(BadInput.ENCODING, f"{what} holds depth, expected a colour picture")
    try:
        file = open_image(data)
        check_size(file.height, file.width, max_pixels)
        image = file.decode()
    except ImageFileError as error:
        raise InputError(BadInput.CORRUPT, f"{what}: {error}") from None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def map_values(message: Any) -> np.ndarray:
    """The numbers of a one-channel Image, `(H, W)`, in this machine's byte order.

    Raises:
        ValueError: it has several channels, or size, step and data do not fit one another.
    """
    height, width, step = message.height, message.width, message.step
    if message.encoding not in MAP_ENCODINGS:
        known = ", ".join(MAP_ENCODINGS)
        raise ValueError(
            f"the encoding is '{one_line(message.encoding, 40)}', expected one of {known}"
        )
    if height < 1 or width < 1:
        raise ValueError(f"the map is {width} x {height} pixels: it is empty")
    dtype = np.dtype(MAP_ENCODINGS[message.encoding])
    data = np.frombuffer(message.data, np.uint8)
    if step < width * dtype.itemsize or data.size != height * step:
        raise ValueError(
            f"{data.size} bytes of data in rows of {step} bytes do not make {width} x {height} "
            f"pixels of {message.encoding}"
        )
    rows = np.ascontiguousarray(data.reshape(height, step)[:, : width * dtype.itemsize])
    values = rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<"))
    return values.astype(dtype, copy=False)
