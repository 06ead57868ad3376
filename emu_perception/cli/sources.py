"""Images that a user names: files, folders and videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emu_perception.images import UPRIGHT_COLOR, read_image_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
BAG_SUFFIXES = (".mcap", ".db3", ".bag")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v")


def _refuse_recording(path: Path, sign: Path) -> None:
    """Raise ValueError if the file exists that tells a recording from images."""
    if sign.is_file():
        raise ValueError(
            f"{path} is a recording: `emu bag` reads those; `emu bag annotate` writes the "
            "predictions to a new recording, and `emu demo --input` draws pictures of one"
        )


@dataclass(frozen=True)
class NamedImage:
    """An image with the name that its results get."""

    name: str
    """File name without suffix; of a video with the number of the frame."""
    title: str
    """The name for people."""
    image: np.ndarray
    """`(H, W, 3)` uint8 RGB."""


class Sources:
    """Images of files, folders (not of their subfolders) and videos, in the given order.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a folder has no images, or two results would have the same name.
    """

    def __init__(self, paths: list[Path], every: int = 1) -> None:
        self.every = every
        self.files: list[Path] = []
        for path in paths:
            if path.is_dir():
                _refuse_recording(path, path / "metadata.yaml")
                found = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
                if not found:
                    kinds = ", ".join(IMAGE_SUFFIXES)
                    raise ValueError(f"{path} has no images: expected files with {kinds}")
                self.files += found[::every]
            elif path.is_file():
                if path.suffix.lower() in BAG_SUFFIXES:
                    _refuse_recording(path, path)
                self.files.append(path)
            else:
                raise FileNotFoundError(f"{path}: there is no such image, folder or video")
        names: dict[str, Path] = {}
        for file in self.files:
            twin = names.setdefault(file.stem, file)
            if twin != file:
                raise ValueError(
                    f"the results of {twin} and {file} would both be {file.stem}.png: run them "
                    "with different --out"
                )

    def __iter__(self) -> Iterator[NamedImage]:
        for file in self.files:
            if file.suffix.lower() in VIDEO_SUFFIXES:
                yield from self._frames(file)
            else:
                image = cv2.cvtColor(read_image_file(file, UPRIGHT_COLOR), cv2.COLOR_BGR2RGB)
                yield NamedImage(file.stem, file.name, image)

    def _frames(self, file: Path) -> Iterator[NamedImage]:
        video = cv2.VideoCapture(str(file))
        try:
            index = -1
            while video.grab():
                index += 1
                if index % self.every:
                    continue
                good, frame = video.retrieve()
                if good:
                    image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                    yield NamedImage(
                        f"{file.stem}_{index:06d}", f"{file.name} frame {index}", image
                    )
            if index < 0:
                raise ValueError(f"{file} cannot be decoded as a video")
        finally:
            video.release()
