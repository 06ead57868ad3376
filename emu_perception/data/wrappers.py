"""Data sets made from others: other label sets, other sizes, derived ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from emu_perception.data.augmentation import resize
from emu_perception.data.dataset import Dataset, Wrapper
from emu_perception.data.geometry import edges_from_labels, normals_from_depth
from emu_perception.data.sample import Sample
from emu_perception.labels import LabelSet, class_mapping
from emu_perception.prediction import UNLABELLED
from emu_perception.tasks import TASKS


class Relabelled(Wrapper):
    """A data set in the classes of another label set.

    A class that covers several of the other set becomes a coarse label (`Dataset.label_groups`).
    """

    def __init__(
        self,
        source: Dataset,
        label_set: LabelSet,
        renamed: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """
        Args:
            source: any data set; one without classes stays without.
            label_set: the classes wanted.
            renamed: class of the source -> class or classes of `label_set`. It adds to the names
                that both sets share and to the source's own `LabelSet.finer`; classes without a
                counterpart become unlabelled.

        Raises:
            ValueError: `renamed` names a class that does not exist, or no class has a counterpart.
        """
        super().__init__(source)
        if source.label_set is None:
            return
        covered = class_mapping(source.label_set, label_set, renamed)
        classes = {old: tuple(label_set.index(n) for n in new) for old, new in covered.items()}
        groups = {tuple(sorted(ids)) for ids in classes.values() if len(ids) > 1}
        self.label_set, self.label_groups = label_set, tuple(sorted(groups))
        self._table = np.full(256, UNLABELLED, np.uint8)
        for old, ids in classes.items():
            self._table[source.label_set.index(old)] = label_id(ids, label_set, self.label_groups)

    def change(self, sample: Sample, index: int) -> Sample:
        if sample.labels is None:
            return sample
        return replace(sample, labels=self._table[sample.labels])


def unmatched_classes(
    source: LabelSet,
    label_set: LabelSet,
    renamed: Mapping[str, str | Sequence[str]] | None = None,
) -> list[str]:
    """List the classes of `source` that `Relabelled` turns into unlabelled pixels."""
    covered = class_mapping(source, label_set, renamed)
    return [name for name in source.names if name not in covered]


def ignored_fraction(dataset: Dataset, classes: Sequence[str]) -> float:
    """Fraction of the labelled pixels of a data set, in [0, 1], that have one of these classes."""
    counts = np.zeros(256, np.int64)
    for sample in dataset:
        if sample.labels is not None:
            counts += np.bincount(sample.labels.ravel(), minlength=256)
    assert dataset.label_set is not None
    ignored = sum(counts[dataset.label_set.index(name)] for name in classes)
    return float(ignored / max(1, counts[:UNLABELLED].sum()))


def label_id(ids: Sequence[int], label_set: LabelSet, groups: Sequence[tuple[int, ...]]) -> int:
    """The id in `Sample.labels` of one class, or of the group of several classes."""
    return ids[0] if len(ids) == 1 else len(label_set) + groups.index(tuple(sorted(ids)))


class Target(Wrapper):
    """A data set as the domain to adapt to: images without any label."""

    def __init__(self, source: Dataset) -> None:
        super().__init__(source)
        self.tasks, self.label_set = (), None

    def change(self, sample: Sample, index: int) -> Sample:
        return replace(sample.without(*TASKS), target=True)


class Resized(Wrapper):
    """A data set at another image size; depth keeps its metres, the intrinsics follow."""

    def __init__(self, source: Dataset, size: tuple[int, int]) -> None:
        """`size` is height and width."""
        super().__init__(source)
        self.size = size

    def change(self, sample: Sample, index: int) -> Sample:
        return resize(sample, *self.size)


_DERIVED_FROM = {"normals": "depth", "edges": "semantic"}


def derive(source: Dataset, tasks: Sequence[str]) -> Dataset:
    """The data set with those of the tasks that it lacks and that can be derived from what it has.

    Normals are fitted in the data set's `normals_window`.
    """
    missing = [
        task
        for task, needed in _DERIVED_FROM.items()
        if task in tasks and task not in source.tasks and needed in source.tasks
    ]
    return Derived(source, missing) if missing else source


class Derived(Wrapper):
    """A data set with normals from its depth and cameras, and edges from its classes.

    Ground truth that the data set has stays as it is. What is derived from a label that an image
    lacks is missing too, so hide labels (`PartiallyAnnotated`) outside of this wrapper, not inside.
    """

    def __init__(self, source: Dataset, tasks: Sequence[str] = ("normals", "edges")) -> None:
        """
        Args:
            source: any data set; normals are fitted in its `normals_window`.
            tasks: of `normals` and `edges`, those to derive.

        Raises:
            ValueError: a task cannot be derived from what the data set has.
        """
        super().__init__(source)
        for task in tasks:
            needed = _DERIVED_FROM.get(task)
            if task not in source.tasks and needed not in source.tasks:
                raise ValueError(
                    f"cannot derive '{task}'"
                    + (
                        f", which needs '{needed}': the data set has {source.tasks}"
                        if needed
                        else ""
                    )
                )
        self._derived = tuple(tasks)
        self.tasks = tuple(task for task in TASKS if task in (*source.tasks, *tasks))

    def change(self, sample: Sample, index: int) -> Sample:
        if (
            "normals" in self._derived
            and sample.normals is None
            and sample.depth is not None
            and sample.intrinsics is not None
        ):
            normals = normals_from_depth(
                sample.depth, sample.intrinsics, window=self.normals_window
            )
            sample = replace(sample, normals=normals)
        if "edges" in self._derived and sample.edges is None and sample.labels is not None:
            sample = replace(sample, edges=edges_from_labels(sample.labels))
        return sample
