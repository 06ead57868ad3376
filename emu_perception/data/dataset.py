"""The interface of every data set, and the one for data sets that are files on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data

from emu_perception.camera import Intrinsics
from emu_perception.data.files import (
    LabelTable,
    read_image,
    read_stored,
    require_type,
)
from emu_perception.data.sample import (
    DataError,
    Sample,
)
from emu_perception.labels import LabelSet
from emu_perception.prediction import MapHolder
from emu_perception.tasks import TASKS


@dataclass(frozen=True)
class Problem:
    """A problem of one file of a data set."""

    where: str
    """The file or folder."""
    what: str
    fatal: bool = True
    """False: worth knowing, but training goes on (an image without labels of one task)."""

    @classmethod
    def of(cls, error: DataError, where: Path | str) -> Problem:
        """An error as a problem, at `where` unless the error itself names a file."""
        return cls(error.where or str(where), error.what)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Dataset(torch.utils.data.Dataset[Sample], ABC):
    """Images with labels for some tasks, by index; the same index always gives the same sample.

    Data sets whose samples differ from epoch to epoch (endless scenes, mixtures, augmentation)
    override `set_epoch`; within an epoch they too are functions of the index.
    """

    label_set: LabelSet | None = None
    """Meaning of the ids in `Sample.labels`; None without labels."""
    label_groups: tuple[tuple[int, ...], ...] = ()
    """Coarse labels: with C classes, the id C + k in `Sample.labels` stands for one of the classes
    `label_groups[k]`, which of them is not known."""
    tasks: tuple[str, ...] = ()
    """The tasks that at least some samples have labels for."""
    sequences: bool = False
    """True where samples come with their neighbours in time."""
    normals_window: int = 5
    """Pixels: the neighbourhood that `derive` fits normals in, the same to train and to judge."""
    ordered: bool = False
    """True where the data set shuffles itself (a mixture): its order is the order to train in."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The sample; IndexError beyond the end, DataError naming the file that is broken."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The sample's name, without reading its files."""

    @abstractmethod
    def clip(self, index: int) -> str:
        """The sample's clip, without reading its files."""

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch; reaches worker processes that already run."""

    def stored(self) -> int:
        """Samples that there are files of: what `problems` reads."""
        return len(self)

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        """Read everything and tell what is missing or broken; `progress(done, total)` per
        sample."""
        for index in range(len(self)):
            try:
                _ = self[index]
            except DataError as error:
                yield Problem.of(error, self.name(index))
            if progress is not None:
                progress(index + 1, len(self))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Item(MapHolder):
    """The files of one sample; None = the data set has no such file for it."""

    name: str
    clip: str
    image: Path
    labels: Path | None = None
    depth: Path | None = None
    normals: Path | None = None
    camera: Path | None = None
    edges: Path | None = None
    human_parts: Path | None = None
    saliency: Path | None = None
    neighbours: tuple[Path, Path] | None = None
    """The images before and after, if sequences are requested and it has both."""


@dataclass(frozen=True)
class Readers(MapHolder):
    """How a data set's files become arrays. Functions of module level or partials: they go to
    worker processes. Each raises DataError naming the file."""

    image: Callable[[Path], np.ndarray] = read_image
    labels: Callable[[Item], np.ndarray] | None = None
    depth: Callable[[Item], np.ndarray] | None = None
    normals: Callable[[Item], np.ndarray] | None = None
    edges: Callable[[Item], np.ndarray] | None = None
    human_parts: Callable[[Item], np.ndarray | None] | None = None
    """None for an image in which no part is labelled."""
    saliency: Callable[[Item], np.ndarray] | None = None
    intrinsics: Callable[[Item, tuple[int, int]], Intrinsics | None] | None = None
    """Given the item and its image's height and width."""


def _fields() -> tuple[str, ...]:
    return (*(task.field for task in TASKS.values()), "intrinsics", "neighbours")


def read_item_labels(item: Item, table: LabelTable) -> np.ndarray:
    """An 8-bit, one-channel label map as `(H, W)` uint8 class ids."""
    assert item.labels is not None
    stored = require_type(read_stored(item.labels), item.labels, np.uint8)
    return table.apply(stored, item.labels)


class FileDataset(Dataset):
    """A list of items and the functions that read them."""

    def __init__(
        self,
        items: Sequence[Item],
        readers: Readers,
        label_set: LabelSet | None = None,
        problems: Iterable[Problem] = (),
        label_groups: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """`problems` are those found while listing the files, such as labels without an image."""
        self.items = list(items)
        self.readers = readers
        self.label_set = label_set
        self.label_groups = tuple(label_groups)
        self.sequences = any(item.neighbours for item in items)
        self._listing_problems = list(problems)
        self.tasks = tuple(
            name
            for name, task in TASKS.items()
            if any(item.get(task.field) is not None for item in items)
        )

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return self.items[index].name

    def clip(self, index: int) -> str:
        return self.items[index].clip

    def _read(self, item: Item, sample: Sample, field: str) -> Sample:
        """The sample with one more field, where the item has a file for it; checked."""
        if field == "neighbours":
            if item.neighbours is None:
                return sample
            path = item.neighbours[0]
            read: Any = tuple(self.readers.image(each) for each in item.neighbours)
        else:
            path = (item.camera or item.image) if field == "intrinsics" else item.get(field)
            reader = self.readers.get(field)
            if path is None or reader is None:
                return sample
            read = reader(item, sample.size) if field == "intrinsics" else reader(item)
            if read is None:
                return sample
        value: dict[str, Any] = {field: read}
        try:
            only = Sample(sample.name, sample.clip, sample.image).having(value)
            only.check(len(self.label_set) + len(self.label_groups) if self.label_set else None)
        except DataError as error:
            raise DataError.at(path, error.what) from None
        return sample.having(value)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        sample = Sample(item.name, item.clip, self.readers.image(item.image))
        for field in _fields():
            sample = self._read(item, sample, field)
        return sample

    def _item_problems(self, item: Item) -> list[Problem]:
        try:
            sample = Sample(item.name, item.clip, self.readers.image(item.image))
        except DataError as error:
            return [Problem.of(error, item.image)]
        found = []
        for field in _fields():
            try:
                self._read(item, sample, field)
            except DataError as error:
                found.append(Problem.of(error, item.image))
        return found

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        yield from self._listing_problems
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for done, found in enumerate(pool.map(self._item_problems, self.items), start=1):
                yield from found
                if progress is not None:
                    progress(done, len(self))


class Wrapper(Dataset):
    """A data set that changes the samples of another: override `change`."""

    def __init__(self, source: Dataset) -> None:
        self.source = source
        self.label_set = source.label_set
        self.label_groups = source.label_groups
        self.tasks = source.tasks
        self.sequences = source.sequences
        self.normals_window = source.normals_window
        self.ordered = source.ordered

    @abstractmethod
    def change(self, sample: Sample, index: int) -> Sample:
        """The changed sample; `index` is its place in the source."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.change(self.source[index], index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def clip(self, index: int) -> str:
        return self.source.clip(index)

    def set_epoch(self, epoch: int) -> None:
        self.source.set_epoch(epoch)

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        return self.source.problems(progress)


class Subset(Dataset):
    """Some samples of a data set, in the given order."""

    def __init__(self, source: Dataset, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = [range(len(source))[index] for index in indices]
        self.label_set = source.label_set
        self.label_groups = source.label_groups
        self.tasks = source.tasks
        self.sequences = source.sequences
        self.normals_window = source.normals_window

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def clip(self, index: int) -> str:
        return self.source.clip(self.indices[index])

    def set_epoch(self, epoch: int) -> None:
        self.source.set_epoch(epoch)
