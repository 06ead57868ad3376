"""Ground truth out of folders and messages, matched by index or stamp."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception.recordings.image_messages import compressed_image_message, header
from emu_perception.recordings.output_messages import image_message
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.truth import (
    TruthFolder,
    TruthReader,
    at_size,
    depth_of,
    labels_of,
)

SECOND = 10**9
IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def write(folder: Path, **files: np.ndarray) -> Path:
    folder.mkdir()
    for name, values in files.items():
        cv2.imwrite(str(folder / f"{name}.png"), values)
    return folder


def test_files_are_matched_by_the_stamp_in_their_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "labels", a=IDS)
    for name in ("5.250", "7_000000009", "9000000000"):
        cv2.imwrite(str(folder / f"{name}.png"), IDS)
    with pytest.raises(ValueError, match=r"a\.png: expected a stamp for a name"):
        TruthFolder.open("labels", folder, "stamp")
    (folder / "a.png").unlink()
    problems = Problems()
    reader = TruthReader([TruthFolder.open("labels", folder, "stamp")], problems)
    # A name may be rounded to milliseconds.
    assert np.array_equal(reader.read(0, 5 * SECOND + 250_400_000, (3, 4))["labels"], IDS)
    assert reader.read(1, 5 * SECOND + 252_000_000, (3, 4)) == {}
    assert "labels" in reader.read(2, 7 * SECOND + 9, (6, 8))
    reader.finish(3)
    counts = {kind: found["count"] for kind, found in problems.values().items()}
    assert counts == {"image without labels": 1, "labels without an image": 1}
    assert problems.values()["labels without an image"]["examples"] == ["9000000000.png"]


def test_what_is_no_truth_is_counted(tmp_path: Path) -> None:
    wrong = np.zeros((3, 4), np.uint16)
    folder = write(tmp_path / "labels", a=IDS, b=wrong, c=np.zeros((9, 4), np.uint8))
    problems = Problems()
    reader = TruthReader([TruthFolder.open("labels", folder)], problems)
    sizes = [len(reader.read(i, 0, (3, 4))) for i in range(4)]
    assert sizes == [1, 0, 0, 0]
    found = problems.values()
    assert found["unusable labels"]["count"] == 2
    assert "b.png: is uint16" in found["unusable labels"]["examples"][0]
    assert "other proportions" in found["unusable labels"]["examples"][1]
    assert found["image without labels"]["examples"] == ["image 3"]
    with pytest.raises(ValueError, match="expected a folder of PNG files"):
        TruthFolder.open("labels", tmp_path)


def test_messages_are_read_as_class_ids_and_metres() -> None:
    top = header(0, "camera")
    assert np.array_equal(labels_of(image_message(top, "mono8", IDS)), IDS)
    png = cv2.imencode(".png", IDS)[1].tobytes()
    assert np.array_equal(labels_of(compressed_image_message(png, "png", 0)), IDS)
    metres = IDS.astype(np.float32)
    assert np.array_equal(depth_of(image_message(top, "32FC1", metres)), metres)
    stored = image_message(top, "mono8", IDS.astype(np.uint16))
    stored.encoding = "16UC1"
    np.testing.assert_allclose(depth_of(stored, 0.5), metres / 2)
    with pytest.raises(ValueError, match="labels are float32"):
        labels_of(image_message(top, "32FC1", metres))
    with pytest.raises(ValueError, match="not an image file"):
        depth_of(compressed_image_message(b"nothing", "png", 0))


def test_truth_comes_to_the_size_of_the_image() -> None:
    assert at_size(IDS, (3, 4)) is IDS
    assert np.array_equal(at_size(IDS, (6, 8))[::2, ::2], IDS)
    # Each pixel of a third of the size lies on the middle one of three.
    for kind in (np.uint8, np.float32):
        columns = np.tile(np.arange(9, dtype=kind), (3, 1))
        assert at_size(columns, (1, 3)).tolist() == [[1, 4, 7]]
