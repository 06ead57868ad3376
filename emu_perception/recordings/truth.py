"""Ground truth of recorded images: maps out of messages and files, at the size of the image."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from emu_perception.images import MAX_PIXELS, STORED, decode_image
from emu_perception.messages.images import map_values
from emu_perception.recordings.problems import Problems

LARGEST_STRETCH = 0.02
"""By which the proportions of ground truth and image may differ."""
STAMP_TOLERANCE_NS = 1_000_000
"""File names often leave out what is below a microsecond or a millisecond."""
MILLIMETRES = 1e-3
"""Metres per unit of 16-bit depth (REP-118)."""
Match = Literal["index", "stamp"]
Kind = Literal["labels", "depth"]
KINDS: tuple[Kind, ...] = ("labels", "depth")


def labels_of(message: Any) -> np.ndarray:
    """`(H, W)` uint8 class ids of an Image (mono8, 8UC1) or a CompressedImage (PNG).

    Raises:
        ValueError: it holds something else.
    """
    values = _stored(message)
    if values.dtype != np.uint8 or values.ndim != 2:
        raise ValueError(f"labels are {_kind(values)}, expected one channel of uint8")
    return values


def depth_of(message: Any, scale: float = MILLIMETRES) -> np.ndarray:
    """`(H, W)` float32 metres of an Image (32FC1, 16UC1) or a CompressedImage (16-bit PNG).

    Args:
        message: the message.
        scale: metres per unit of 16-bit depth.

    Raises:
        ValueError: it holds something else.
    """
    values = _stored(message)
    if values.ndim == 2 and values.dtype == np.float32:
        return values
    return _metres(values, scale)


def _stored(message: Any) -> np.ndarray:
    if not hasattr(message, "format"):
        return map_values(message)
    return decode_image(message.data, STORED, MAX_PIXELS)


def _metres(values: np.ndarray, scale: float) -> np.ndarray:
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ValueError(f"depth is {_kind(values)}, expected one channel of uint16")
    return values.astype(np.float32) * np.float32(scale)


def _kind(values: np.ndarray) -> str:
    return f"{values.dtype} {values.shape}"


def at_size(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map at the (height, width) of an image, by nearest neighbour.

    Raises:
        ValueError: its proportions are others.
    """
    if values.shape == size:
        return values
    stretch = values.shape[0] * size[1] / (values.shape[1] * size[0])
    if abs(stretch - 1) > LARGEST_STRETCH:
        raise ValueError(
            f"{values.shape[1]} x {values.shape[0]} has other proportions than the image, "
            f"{size[1]} x {size[0]}"
        )
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


@dataclass(frozen=True)
class TruthFolder:
    """Files of one kind, matched to images.

    By index the i-th file in the order of names belongs to the i-th image. By stamp a file's name
    is the stamp of its image: `SECONDS.FRACTION`, `SECONDS_NANOSECONDS` or nanoseconds.
    """

    kind: Kind
    """8-bit class ids, 255 = unlabelled; or 16-bit depth, 0 = none."""
    files: Sequence[Path]
    match: Match = "index"
    scale: float = MILLIMETRES
    """Metres per unit of depth."""

    @classmethod
    def open(
        cls,
        kind: Kind,
        folder: Path,
        match: Match = "index",
        scale: float = MILLIMETRES,
    ) -> TruthFolder:
        """List a folder.

        Raises:
            ValueError: it has no PNG files, or one whose name is no stamp.
        """
        files = sorted(folder.glob("*.png")) if folder.is_dir() else []
        if not files:
            raise ValueError(f"{folder}: expected a folder of PNG files, one per image of the bag")
        found = cls(kind, files, match, scale)
        if match == "stamp":
            found = cls(kind, [file for _, file in found._by_stamp], match, scale)
        return found

    def find(self, index: int, stamp_ns: int) -> Path | None:
        """The file of an image."""
        if self.match == "index":
            return self.files[index] if index < len(self.files) else None
        stamps = self._by_stamp
        at = bisect.bisect_left(stamps, stamp_ns, key=lambda each: each[0])
        near = stamps[max(at - 1, 0) : at + 1]
        gap, file = min(((abs(s - stamp_ns), f) for s, f in near), key=lambda each: each[0])
        return file if gap <= STAMP_TOLERANCE_NS else None

    def read(self, file: Path) -> np.ndarray:
        """Class ids or metres.

        Raises:
            ValueError: the file holds something else.
        """
        values = decode_image(file.read_bytes(), STORED)
        if self.kind == "depth":
            return _metres(values, self.scale)
        if values.dtype != np.uint8 or values.ndim != 2:
            raise ValueError(f"is {_kind(values)}, expected one channel of uint8")
        return values

    @cached_property
    def _by_stamp(self) -> list[tuple[int, Path]]:
        return sorted((_stamp_of(file), file) for file in self.files)


def _stamp_of(file: Path) -> int:
    match = re.fullmatch(r"(\d+)(?:([._-])(\d{1,9}))?", file.stem)
    if not match:
        raise ValueError(
            f"{file}: expected a stamp for a name, such as 1700000000.250000000.png or nanoseconds"
        )
    whole, separator, fraction = match.groups()
    if separator is None:
        return int(whole)
    # After a point a fraction is decimal; after a dash or underscore it counts nanoseconds.
    nanoseconds = fraction.ljust(9, "0") if separator == "." else fraction
    return int(whole) * 1_000_000_000 + int(nanoseconds)


class TruthReader:
    """Gives the ground truth of images from folders; what is missing or wrong is counted."""

    def __init__(self, folders: Sequence[TruthFolder], problems: Problems) -> None:
        self.folders, self._problems = folders, problems
        self._used: dict[str, set[Path]] = {folder.kind: set() for folder in folders}

    def read(self, index: int, stamp_ns: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Maps by kind, at the image's size."""
        found: dict[str, np.ndarray] = {}
        for folder in self.folders:
            file = folder.find(index, stamp_ns)
            if file is None:
                self._problems.count(f"image without {folder.kind}", f"image {index}")
                continue
            self._used[folder.kind].add(file)
            try:
                found[folder.kind] = at_size(folder.read(file), size)
            except (ValueError, OSError) as error:
                self._problems.count(f"unusable {folder.kind}", f"{file.name}: {error}")
        return found

    def finish(self, images: int) -> None:
        """Count the files that belong to none of so many images, readable or not."""
        for folder in self.folders:
            used = self._used[folder.kind]
            by_index = folder.match == "index"
            left = folder.files[images:] if by_index else [f for f in folder.files if f not in used]
            for file in left:
                self._problems.count(f"{folder.kind} without an image", file.name)
