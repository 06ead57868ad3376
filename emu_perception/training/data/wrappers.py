"""Data sets made from others: other label sets, other sizes, derived ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from emu_perception.labels import LabelSet
from emu_perception.prediction import UNLABELLED
from emu_perception.training.augmentation import resize
from emu_perception.training.data.dataset import Dataset, Wrapper
from emu_perception.training.geometry import edges_from_labels, normals_from_depth
from emu_perception.training.sample import TASKS, Sample


class Relabelled(Wrapper):
    """A data set in the classes of another label set."""

    def __init__(
        self, source: Dataset, label_set: LabelSet, renamed: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            source: any data set; one without classes stays without.
            label_set: the classes wanted.
            renamed: class of the source -> class of `label_set`. Classes of the same name need no
                entry; those without a counterpart become unlabelled.

        Raises:
            ValueError: `renamed` names a class that there is not, or no class has a counterpart.
        """
        super().__init__(source)
        if source.label_set is None:
            return
        targets = {name: name for name in source.label_set.names if name in label_set.names}
        for old, new in (renamed or {}).items():
            if old not in source.label_set.names or new not in label_set.names:
                raise ValueError(
                    f"cannot rename class '{old}' to '{new}': '{source.label_set.name}' has "
                    f"{', '.join(source.label_set.names)}; '{label_set.name}' has "
                    f"{', '.join(label_set.names)}"
                )
            targets[old] = new
        if not targets:
            raise ValueError(
                f"no class of '{source.label_set.name}' has a counterpart in '{label_set.name}'"
            )
        self.label_set = label_set
        self._table = np.full(256, UNLABELLED, np.uint8)
        for old, new in targets.items():
            self._table[source.label_set.index(old)] = label_set.index(new)

    def change(self, sample: Sample, index: int) -> Sample:
        if sample.labels is None:
            return sample
        return replace(sample, labels=self._table[sample.labels])


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
