"""A stream of damaged images must not fill the log."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from emu_perception.images import ImageFileError, decode_image
from emu_perception.native_stderr import quiet_decoders


def damaged_jpegs() -> list[bytes]:
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (128, 96))
    _, encoded = cv2.imencode(".jpg", image)
    found = []
    for _ in range(20):
        data = bytearray(encoded.tobytes())
        at = int(random.integers(len(data) // 2, len(data) - 20))
        data[at : at + 4] = random.integers(1, 200, 4, np.uint8).tobytes()
        found.append(bytes(data))
    return found


def test_decoders_write_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for data in damaged_jpegs():
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert "Corrupt JPEG" in capfd.readouterr().err  # so these images do make it write
    for data in damaged_jpegs():
        try:
            decode_image(data)
        except ImageFileError:
            continue
    assert capfd.readouterr().err == ""


def test_other_lines_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_decoders():
        os.write(2, b"[WARN] [1.5] [emu_perception]: a log\nlibpng warning: iCCP\n")
        with quiet_decoders():
            os.write(2, b"Corrupt JPEG data: 3 extraneous bytes\nTraceback\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "[WARN] [1.5] [emu_perception]: a log\nTraceback\nafter\n"
