"""NYU Depth V2: indoor images with classes and dense depth.

Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images" (ECCV 2012): the file
`nyu_depth_v2_labeled.mat`, or a folder of PNGs made from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.data import files, nyuv2_tables
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import (
    Dataset,
    FileDataset,
    Item,
    Problem,
    Readers,
    read_item_labels,
)
from emu_perception.data.sample import DataError, Sample
from emu_perception.data.splits import choose_split, tail
from emu_perception.labels import LabelSet, load_label_set

_FILE = "nyu_depth_v2_labeled.mat"
# The toolbox's calibration of the colour camera, to which the labelled depth is aligned.
_CAMERA = Intrinsics(518.85790117, 519.46961112, 325.58244941, 253.73616633, 640, 480)
_SPLITS = ("train", "test", "all", "calibration")


@register_dataset(
    "nyuv2", splits=("all",), evaluation_split="test", variants=({"classes": 40}, {"classes": 13})
)
def build_nyuv2(
    root: Path,
    *,
    split: str,
    classes: int = 40,
    calibration_fraction: float = 0.0,
    max_depth: float = 10.0,
    raw_depth: bool = False,
) -> Dataset:
    """Indoor images with 40 or 13 classes and dense depth.

    Args:
        root: holds `nyu_depth_v2_labeled.mat`, or the folders `rgb`, `depth_mm` (16-bit,
            millimetres) and `label40` (0–39, 255 = unlabelled) and/or `label13` (1–13, 0 =
            unlabelled), whose files are named by the images' numbers, from 1.
        split: `train` (795 images) and `test` (654), the official ones; `all`; or `calibration`.
        classes: 40 or 13.
        calibration_fraction: the last fraction of the training images, left out of `train`.
        max_depth: metres; depth from here on counts as none.
        raw_depth: the sensor's depth with its holes instead of the filled-in one (.mat only).
    """
    if classes not in (40, 13):
        raise ValueError(f"nyuv2 has 40 or 13 classes, not {classes}")
    label_set = load_label_set(f"nyuv2_{classes}")
    if not (root / _FILE).is_file():
        if not (root / "rgb").is_dir():
            raise DataError.at(root, f"holds neither {_FILE} nor a folder 'rgb'")
        items, problems = _list_folder(root, classes)
        chosen = _choose(items, split, calibration_fraction, root)
        readers = Readers(
            labels=partial(_read_labels, classes=classes),
            depth=partial(_read_depth, max_depth=max_depth),
            intrinsics=_read_intrinsics,
        )
        return FileDataset(chosen, readers, label_set, problems)
    dataset = NyuMat(root / _FILE, label_set, max_depth, raw_depth)
    dataset.items = _choose(dataset.items, split, calibration_fraction, root)
    return dataset


def _choose(items: list[Item], split: str, calibration_fraction: float, root: Path) -> list[Item]:
    """The official split, by the number that an image is named by."""
    if split == "all":
        return items
    known: dict[str, list[Item]] = {name: [] for name in _SPLITS}
    for item in items:
        if not item.name.isdigit():
            raise DataError.at(
                item.image,
                "is not named by its number (0001 …): only the split 'all' is known for it",
            )
        test = int(item.name) in nyuv2_tables.TEST_NUMBERS
        known["test" if test else "train"].append(item)
    known["train"], known["calibration"] = tail(known["train"], calibration_fraction)
    return choose_split(split, known, root)


def _list_folder(root: Path, classes: int) -> tuple[list[Item], list[Problem]]:
    images = files.list_files(root / "rgb")
    files.require_items(list(images), root / "rgb", "images")
    # Thirteen classes follow from forty, not the other way round.
    label_folders = [root / "label40"] if classes == 40 else [root / "label13", root / "label40"]
    labels: dict[str, Path] = {}
    for folder in reversed(label_folders):
        labels.update(files.list_files(folder, (".png",)) if folder.is_dir() else {})
    depth_folder = root / "depth_mm"
    depth = files.list_files(depth_folder, (".png",)) if depth_folder.is_dir() else {}
    items, problems = [], []
    for name, image in images.items():
        items.append(Item(name, name, image, labels=labels.get(name), depth=depth.get(name)))
        for kind, there in ((f"{classes} classes", labels), ("depth", depth)):
            if name not in there:
                problems.append(Problem(str(image), f"is without {kind}", fatal=False))
    problems += [
        Problem(str(path), "there is no image of this name")
        for others in (labels, depth)
        for path in files.unmatched(images, others)
    ]
    return items, problems


def _read_labels(item: Item, classes: int) -> np.ndarray:
    assert item.labels is not None
    if item.labels.parent.name == "label13":
        table = files.LabelTable({i + 1: i for i in range(13)}, unlabelled=(0,))
    elif classes == 13:
        table = files.LabelTable(nyuv2_tables.FORTY_TO_THIRTEEN, unlabelled=(255,))
    else:
        table = files.LabelTable.of_classes(40)
    return read_item_labels(item, table)


def _read_depth(item: Item, max_depth: float) -> np.ndarray:
    assert item.depth is not None
    return files.read_depth(item.depth, per_metre=1000, max_depth=max_depth)


def _read_intrinsics(item: Item, size: tuple[int, int]) -> Intrinsics | None:
    """The camera, unless the images were cropped or resized."""
    return _CAMERA if size == (_CAMERA.height, _CAMERA.width) else None


class NyuMat(Dataset):
    """Images of `nyu_depth_v2_labeled.mat`, a MATLAB 7.3 (HDF5) file; needs h5py."""

    tasks = ("semantic", "depth")

    def __init__(
        self, path: Path, label_set: LabelSet, max_depth: float = 10.0, raw_depth: bool = False
    ) -> None:
        self.path = path
        self.label_set = label_set
        self.max_depth = max_depth
        self._depth_field = "rawDepths" if raw_depth else "depths"
        forty = label_set == load_label_set("nyuv2_40")
        self._table = files.LabelTable(
            nyuv2_tables.LABELS_TO_FORTY if forty else nyuv2_tables.LABELS_TO_THIRTEEN,
            unlabelled=(0,),
        )
        self._file: Any = None
        self._owner = -1
        self.items = self._list()
        self.close()

    def close(self) -> None:
        """Close the file; reading an image opens it again."""
        if self._owner == os.getpid():
            self._file.close()
        self._file, self._owner = None, -1

    def _open(self) -> Any:
        """The open file; each process opens it for itself, as HDF5 handles do not survive a
        fork."""
        if self._owner != os.getpid():
            import h5py

            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise DataError.at(
                    self.path, f"is not a readable MATLAB 7.3 file: {error}"
                ) from None
            self._owner = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_owner": -1}

    def _list(self) -> list[Item]:
        file = self._open()
        for field in ("images", "labels", self._depth_field):
            if field not in file:
                raise DataError.at(self.path, f"has no '{field}'")
            dimensions = 4 if field == "images" else 3
            if file[field].ndim != dimensions or len(file[field]) != len(file["images"]):
                raise DataError.at(
                    self.path,
                    f"'{field}' is {file[field].shape}, expected {dimensions} dimensions, "
                    f"the first of {len(file['images'])} images",
                )
        count = len(file["images"])
        clips = [f"{number:04d}" for number in range(1, count + 1)]
        if "scenes" in file:
            clips = ["".join(map(chr, file[ref][()].ravel())) for ref in file["scenes"][()].ravel()]
        return [
            Item(f"{number:04d}", clip, self.path) for number, clip in enumerate(clips, start=1)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return self.items[index].name

    def clip(self, index: int) -> str:
        return self.items[index].clip

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        row = int(item.name) - 1
        file = self._open()
        where = f"{self.path} image {item.name}"
        try:
            image, ids, depth = (file[f][row] for f in ("images", "labels", self._depth_field))
        except OSError as error:
            raise DataError.at(where, f"cannot be read: {error}") from None
        depth = depth.T.astype(np.float32)
        depth[~np.isfinite(depth)] = 0
        sample = Sample(
            item.name,
            item.clip,
            np.ascontiguousarray(image.transpose(2, 1, 0)),
            labels=self._table.apply(ids.T, Path(where)),
            depth=files.limit_depth(depth, self.max_depth),
            intrinsics=_read_intrinsics(item, (image.shape[2], image.shape[1])),
        )
        try:
            sample.check(len(self.label_set) if self.label_set else None)
        except DataError as error:
            raise DataError.at(where, error.what) from None
        return sample

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        count = len(self._open()["images"])
        if count != nyuv2_tables.IMAGE_COUNT:
            yield Problem(
                str(self.path), f"holds {count} images, not {nyuv2_tables.IMAGE_COUNT}", fatal=False
            )
        yield from super().problems(progress)
