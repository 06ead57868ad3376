"""Input of the demo: a rendered street drive, or the user's recording, video or images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.images import read_image_file
from emu_perception.inference.engines.base import choose_device
from emu_perception.recordings.image_messages import (
    camera_info_message,
    compressed_image_message,
    header_stamp_ns,
    image_message,
)
from emu_perception.recordings.reader import BagReader, is_bag
from emu_perception.recordings.writer import BagWriter
from emu_perception.resources import find_resource

DRIVE_IMAGES = "/camera/image_raw"
DRIVE_CAMERA_INFO = "/camera/camera_info"
FIRST_STAMP_NS = 1_700_000_000 * 1_000_000_000
"""First stamp of drives without stamps."""
JPEG_QUALITY = 95
KEPT_VIDEO = ("config", "demo", "drive.mp4")
"""The rendered drive in the repository, 640 x 480."""
KEPT_CAMERA = ("config", "demo", "camera.json")
"""Its camera."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")

Progress = Callable[[int, int], None]
"""Called with the number of frames written and their total."""


def write_kept_drive(
    path: Path,
    *,
    seconds: float,
    compressed: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """The rendered drive that comes with the package, as a bag: rgb8 images and their camera_info.

    Args:
        path: of the bag.
        seconds: of the drive; it has 10 s at 10 Hz.
        compressed: JPEG images on the `/compressed` topic instead, a tenth of the size.
        progress: see `Progress`.
    """
    camera = Intrinsics(**json.loads(find_resource(*KEPT_CAMERA).read_text(encoding="utf-8")))
    video = cv2.VideoCapture(str(find_resource(*KEPT_VIDEO)))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        frames = min(max(1, round(seconds * rate)), round(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        with BagWriter(path, overwrite=True) as bag:
            for index in range(frames):
                good, image = video.read()
                if not good:
                    raise ValueError(
                        f"{'/'.join(KEPT_VIDEO)}: OpenCV decoded {index} of {frames} frames; it "
                        "needs a build that decodes MPEG-4"
                    )
                if compressed:
                    time_ns = FIRST_STAMP_NS + round(index * 1e9 / rate)
                    message = compressed_image_message(_jpeg(image), "jpeg", time_ns)
                    bag.write(DRIVE_CAMERA_INFO, camera_info_message(camera, time_ns), time_ns)
                    bag.write(f"{DRIVE_IMAGES}/compressed", message, time_ns)
                else:
                    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    _write_frame(bag, rgb, camera, index, rate)
                progress(index + 1, frames)
    finally:
        video.release()


def write_street_drive(
    path: Path,
    seconds: float,
    rate: float,
    *,
    size: tuple[int, int],
    seed: int = 0,
    device: str = "auto",
    progress: Progress = lambda done, total: None,
) -> None:
    """Render a drive through a street into a bag: rgb8 images and their camera_info.

    Args:
        size: height and width.
        device: where to render: `auto`, `cpu` or `cuda`.
    """
    from emu_perception.scenes import StreetDrive

    device = choose_device(device)
    frames = max(1, round(seconds * rate))
    with BagWriter(path, overwrite=True) as bag:
        drive = StreetDrive(seed, size=size, frames=frames, rate=rate, device=device)
        for index, frame in enumerate(drive):
            _write_frame(bag, frame.image, frame.intrinsics, index, rate)
            progress(index + 1, frames)


def _write_frame(
    bag: BagWriter, image: np.ndarray, camera: Intrinsics, index: int, rate: float
) -> None:
    time_ns = FIRST_STAMP_NS + round(index * 1e9 / rate)
    bag.write(DRIVE_CAMERA_INFO, camera_info_message(camera, time_ns), time_ns)
    bag.write(DRIVE_IMAGES, image_message(image, time_ns), time_ns)


def open_input(
    source: Path, converted: Path, *, seconds: float, rate: float, progress: Progress
) -> Path:
    """The bag to play for a user's own material.

    Args:
        source: a rosbag2, which is played as it is, a video, or a folder of images.
        converted: where the bag of a video or folder is written.
        rate: frames per second of a folder of images.

    Raises:
        ValueError: it is none of these, or cannot be read.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such bag, video or folder")
    if is_bag(source):
        return source
    if source.is_dir():
        _write_folder(source, converted, seconds=seconds, rate=rate, progress=progress)
    else:
        _write_video(source, converted, seconds=seconds, progress=progress)
    return converted


def _write_folder(
    source: Path, converted: Path, *, seconds: float, rate: float, progress: Progress
) -> None:
    files = sorted(f for f in source.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    files = files[: max(1, round(seconds * rate))]
    if not files:
        raise ValueError(
            f"{source}: expected a rosbag2 (metadata.yaml) or images ({', '.join(IMAGE_SUFFIXES)})"
        )

    def encoded() -> Iterator[tuple[bytes, str]]:
        for file in files:
            data = file.read_bytes()
            if data.startswith(b"\xff\xd8"):
                yield data, "jpeg"
            elif data.startswith(b"\x89PNG"):
                yield data, "png"
            else:
                yield _jpeg(read_image_file(file)), "jpeg"

    _write_compressed(converted, encoded(), rate, len(files), progress)


def _write_video(source: Path, converted: Path, *, seconds: float, progress: Progress) -> None:
    video = cv2.VideoCapture(str(source))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        good, first = video.read()
        if not good:
            raise ValueError(
                f"{source}: neither a rosbag2, nor a folder, nor a video that OpenCV can decode"
            )
        # Containers without a frame rate report 0, -1 or nonsense.
        rate = rate if 0.1 < rate < 1000 else 25.0
        total = max(1, round(min(seconds, video.get(cv2.CAP_PROP_FRAME_COUNT) / rate) * rate))

        def encoded() -> Iterator[tuple[bytes, str]]:
            good, image = True, first
            written = 0
            while good and written < seconds * rate:
                yield _jpeg(image), "jpeg"
                written += 1
                good, image = video.read()

        _write_compressed(converted, encoded(), rate, total, progress)
    finally:
        video.release()


def _jpeg(image: cv2.typing.MatLike) -> bytes:
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not good:
        raise ValueError(f"a {image.shape[1]} x {image.shape[0]} image cannot be coded as JPEG")
    return data.tobytes()


def _write_compressed(
    path: Path, encoded: Iterable[tuple[bytes, str]], rate: float, total: int, progress: Progress
) -> None:
    with BagWriter(path, overwrite=True) as bag:
        for index, (data, image_format) in enumerate(encoded):
            time_ns = FIRST_STAMP_NS + round(index * 1e9 / rate)
            message = compressed_image_message(data, image_format, time_ns)
            bag.write(f"{DRIVE_IMAGES}/compressed", message, time_ns)
            progress(min(index + 1, total), total)


def image_stamps(bag: BagReader, image_topic: str, seconds: float) -> list[int]:
    """Header stamps of the images in the first `seconds`, in nanoseconds.

    Raises:
        ValueError: images share stamps, so that outputs cannot be matched to them.
    """
    stamps = [header_stamp_ns(m.data) for m in bag.messages([image_topic], seconds=seconds)]
    if len(set(stamps)) < len(stamps):
        raise ValueError(
            f"{bag.path}: only {len(set(stamps))} of {len(stamps)} images on {image_topic} have a "
            "header stamp of their own; what the node answers is matched by stamp"
        )
    return stamps
