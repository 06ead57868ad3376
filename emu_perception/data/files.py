"""Reading the files of data sets, with errors that name the file and the problem."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.data.sample import DataError
from emu_perception.images import (
    COLOR,
    STORED,
    ImageFile,
    ImageFileError,
    decode_image,
    open_image,
)
from emu_perception.prediction import UNLABELLED

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_bytes(path: Path) -> bytes:
    """The file's content; DataError if it is missing, unreadable or empty."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError.at(path, "there is no such file") from None
    except OSError as error:
        raise DataError.at(path, f"cannot be read: {error.strerror}") from error
    if not content:
        raise DataError.at(path, "the file is empty")
    return content


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        return decode_image(read_bytes(path), flags)
    except ImageFileError as error:
        raise DataError.at(path, str(error)) from None


def open_image_file(path: Path) -> ImageFile:
    """An image file, checked and not yet decoded; DataError if it is no whole image file."""
    try:
        return open_image(read_bytes(path))
    except ImageFileError as error:
        raise DataError.at(path, str(error)) from None


def read_image(path: Path) -> np.ndarray:
    """An 8-bit image as `(H, W, 3)` uint8 RGB; orientation tags are ignored, as labels have
    none."""
    array = _decode(path, COLOR)
    return np.ascontiguousarray(array[..., ::-1])


def read_stored(path: Path) -> np.ndarray:
    """An image as it is stored: `(H, W)`, or `(H, W, C)` in RGB order."""
    array = _decode(path, STORED)
    return array if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1])


def require_type(
    array: np.ndarray, path: Path, dtype: type[np.generic], channels: int = 1
) -> np.ndarray:
    """The array, if it has this type and number of channels; else a DataError that tells both."""
    stored = 1 if array.ndim == 2 else array.shape[2]
    if array.dtype != dtype or stored != channels:
        raise DataError.at(
            path,
            f"is {array.dtype} with {stored} channel{'s' * (stored > 1)}, "
            f"expected {np.dtype(dtype)} with {channels}",
        )
    return array


def depth_in_metres(stored: np.ndarray, per_metre: float, max_depth: float | None) -> np.ndarray:
    """`(H, W)` uint16 as float32 metres; 0, 65535 and what is beyond `max_depth` = none."""
    depth = stored.astype(np.float32) / np.float32(per_metre)
    depth[stored == np.iinfo(np.uint16).max] = 0
    return limit_depth(depth, max_depth)


def read_depth(path: Path, per_metre: float, max_depth: float | None = None) -> np.ndarray:
    """A 16-bit, one-channel depth map as `(H, W)` float32 metres."""
    return depth_in_metres(require_type(read_stored(path), path, np.uint16), per_metre, max_depth)


def limit_depth(depth: np.ndarray, max_depth: float | None) -> np.ndarray:
    """Set depths of `max_depth` and more to 0 (none), in place."""
    if max_depth is not None:
        depth[depth >= max_depth] = 0
    return depth


class LabelTable:
    """Class ids of the ids found in files; ids that it does not know are errors."""

    _UNKNOWN = -1

    def __init__(self, mapping: Mapping[int, int], unlabelled: Iterable[int] = ()) -> None:
        """`mapping`: id in the file -> class id; `unlabelled`: ids that become 255."""
        ids = {**dict.fromkeys(unlabelled, UNLABELLED), **mapping}
        self._table = np.full(
            max(ids) + 2, self._UNKNOWN, np.int16
        )  # the last entry is for all above
        for source, target in ids.items():
            self._table[source] = target

    @classmethod
    def of_classes(cls, count: int, unlabelled: Iterable[int] = (UNLABELLED,)) -> LabelTable:
        """Ids 0 … count-1 as they are."""
        return cls({i: i for i in range(count)}, unlabelled)

    def apply(self, ids: np.ndarray, path: Path) -> np.ndarray:
        """`(H, W)` uint8 class ids.

        Raises:
            DataError: an id is not in the table; the message lists the ids and their pixels.
        """
        labels = self._table[np.minimum(ids.astype(np.int32), len(self._table) - 1)]
        if labels.min(initial=0) < 0:
            unknown, pixels = np.unique(ids[labels < 0], return_counts=True)
            listed = ", ".join(f"{i} ({n} pixels)" for i, n in zip(unknown[:8], pixels))
            raise DataError.at(path, f"unknown label ids: {listed}; known: {self._known()}")
        return labels.astype(np.uint8)

    def _known(self) -> str:
        known = np.flatnonzero(self._table != self._UNKNOWN)
        runs = np.split(known, np.flatnonzero(np.diff(known) != 1) + 1)
        return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(read_bytes(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError.at(path, f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError.at(path, f"holds a JSON {type(value).__name__}, expected an object")
    return value


def json_number(values: dict[str, Any], path: Path, *keys: str) -> float:
    """A number in nested JSON objects; DataError naming the file and the key path."""
    value: Any = values
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError.at(path, f"field '{'.'.join(keys)}' is not a number: {value!r}")
    return float(value)


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Files of a folder by their name without suffix, sorted; DataError if there is no such
    folder."""
    if not folder.is_dir():
        raise DataError.at(folder, "there is no such folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    return {path.stem: path for path in files}


def unmatched(images: Iterable[str], others: Mapping[str, Path]) -> Iterator[Path]:
    """Files that belong to no image."""
    known = set(images)
    return (path for name, path in others.items() if name not in known)


def require_items(items: list[Any], where: Path, what: str) -> None:
    """DataError if a listing found nothing."""
    if not items:
        raise DataError.at(where, f"holds no {what}")
