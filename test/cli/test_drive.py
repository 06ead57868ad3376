"""What the demo plays: the generated drive, and people's own videos, pictures and bags."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.cli.demo.drive import (
    FIRST_STAMP_NS,
    image_stamps,
    open_input,
    write_street_drive,
)
from emu_perception.messages.camera_info import camera_model
from emu_perception.recordings import BagReader, BagWriter
from emu_perception.recordings.image_messages import image_message, rgb
from emu_perception.scenes import StreetDrive

HEIGHT, WIDTH = 48, 64


def frames(count: int) -> list[np.ndarray]:
    """Smooth pictures (JPEG hardly changes them), each of another colour."""
    ramp = np.linspace(0, 80, WIDTH)[None, :, None] * np.ones((HEIGHT, 1, 3))
    return [(ramp + np.array([20 * i, 60, 100])).astype(np.uint8) for i in range(count)]


def played(bag_path: Path) -> list[np.ndarray]:
    with BagReader(bag_path) as bag:
        topic = bag.image_topic().name
        return [rgb(bag.decode(m)) for m in bag.messages([topic])]


def opened(source: Path, converted: Path, seconds: float = 10, rate: float = 10) -> Path:
    return open_input(
        source, converted, seconds=seconds, rate=rate, progress=lambda done, total: None
    )


def test_the_sample_has_images_and_their_camera(tmp_path: Path) -> None:
    path = tmp_path / "sample"
    found = CliRunner().invoke(app, ["demo", "--sample", str(path), "--seconds", "0.5"])
    assert found.exit_code == 0, found.output
    assert sum(file.stat().st_size for file in path.iterdir()) < 3_000_000
    with BagReader(path) as bag:
        source = bag.image_topic()
        assert (source.name, source.count) == ("/camera/image_raw/compressed", 5)
        info_topic = bag.camera_info_topic(source.name)
        assert info_topic is not None and info_topic.count == 5
        (info, *_) = [bag.decode(m) for m in bag.messages([info_topic.name])]
        (image, *_) = played(path)
        camera = camera_model(info, image.shape[:2], "", False)
        assert camera.intrinsics.fx > 100
    again = CliRunner().invoke(app, ["demo", "--sample", str(path)])
    assert again.exit_code == 0  # replaced


def test_a_street_drive_is_written_as_it_was_rendered(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_street_drive(
        tmp_path / "drive",
        seconds=0.4,
        rate=5,
        size=(HEIGHT, WIDTH),
        seed=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    drive = StreetDrive(3, size=(HEIGHT, WIDTH), frames=2, rate=5)
    assert seen == [(1, 2), (2, 2)]
    for image, frame in zip(played(tmp_path / "drive"), drive, strict=True):
        assert np.array_equal(image, frame.image)
    with BagReader(tmp_path / "drive") as bag:
        assert image_stamps(bag, "/camera/image_raw", 10) == [
            FIRST_STAMP_NS,
            FIRST_STAMP_NS + 200_000_000,
        ]
        topic = bag.camera_info_topic("/camera/image_raw")
        assert topic is not None
        info = bag.decode(next(bag.messages([topic.name])))
        camera = camera_model(info, (HEIGHT, WIDTH), "camera", rectified=True)
        assert camera.intrinsics == drive.intrinsics


def test_a_folder_of_pictures_becomes_a_drive(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(frames(4)):
        file = folder / f"{i}.{['png', 'jpg', 'webp', 'tiff'][i]}"
        assert cv2.imwrite(str(file), image[..., ::-1])
    (folder / "notes.txt").write_text("not a picture")
    bag = opened(folder, tmp_path / "drive", rate=4)
    for image, original in zip(played(bag), frames(4), strict=True):
        assert np.abs(image.astype(int) - original).mean() < 3
    with BagReader(bag) as reader:
        assert reader.duration == pytest.approx(0.75)
    assert len(played(opened(folder, tmp_path / "short", seconds=0.5, rate=4))) == 2


def test_a_video_becomes_a_drive(tmp_path: Path) -> None:
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (WIDTH, HEIGHT))
    for image in frames(6):
        writer.write(image[..., ::-1].copy())
    writer.release()
    bag = opened(file, tmp_path / "drive", seconds=0.5)
    images = played(bag)
    assert len(images) == 4
    for image, original in zip(images, frames(6)):
        assert np.abs(image.astype(int) - original).mean() < 4
    with BagReader(bag) as reader:
        assert reader.duration == pytest.approx(3 / 8)


def test_a_bag_is_played_as_it_is(tmp_path: Path) -> None:
    write_street_drive(tmp_path / "bag", seconds=0.1, rate=10, size=(16, 16))
    assert opened(tmp_path / "bag", tmp_path / "drive") == tmp_path / "bag"
    assert not (tmp_path / "drive").exists()


def test_what_cannot_be_played_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such"):
        opened(tmp_path / "nowhere", tmp_path / "drive")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected a rosbag2"):
        opened(tmp_path / "empty", tmp_path / "drive")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"text\.mp4: neither a rosbag2"):
        opened(tmp_path / "text.mp4", tmp_path / "drive")
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "broken.webp").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"broken\.webp: not an image file"):
        opened(folder, tmp_path / "drive")


def test_images_without_stamps_of_their_own_are_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        for i in range(3):
            bag.write("/camera", image_message(frames(1)[0], 0), 1 + i)
    with (
        BagReader(tmp_path / "drive") as bag,
        pytest.raises(ValueError, match="only 1 of 3 images on /camera have a header stamp"),
    ):
        image_stamps(bag, "/camera", 10)
