"""One annotated image: the type that data sets yield and that augmentation transforms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.prediction import UNLABELLED, MapHolder
from emu_perception.tasks import TASKS


class DataError(ValueError):
    """A file of a data set is missing, unreadable or does not hold what it should; names the
    file."""

    def __init__(self, what: str, where: Path | str | None = None) -> None:
        super().__init__(what if where is None else f"{where}: {what}")
        self.what = what
        self.where = None if where is None else str(where)

    @classmethod
    def at(cls, where: Path | str, what: str) -> DataError:
        """An error at a file or folder; the message is `where: what`."""
        return cls(what, where)


@dataclass(frozen=True)
class Sample(MapHolder):
    """One image and what is known about it. A task that the image has no labels for is None."""

    name: str
    """Unique within its data set."""
    clip: str
    """The drive, sequence or scene it comes from: images of one clip are not independent."""
    image: np.ndarray
    """`(H, W, 3)` uint8, RGB."""
    labels: np.ndarray | None = None
    """`(H, W)` uint8, class ids; 255 = unlabelled."""
    depth: np.ndarray | None = None
    """`(H, W)` float32, metres along the optical axis; 0 = none."""
    normals: np.ndarray | None = None
    """`(H, W, 3)` float32, unit vectors in the optical frame towards the camera; (0, 0, 0) =
    none."""
    edges: np.ndarray | None = None
    """`(H, W)` uint8: 1 = class boundary, 0 = not, 255 = unknown."""
    human_parts: np.ndarray | None = None
    """`(H, W)` uint8, index in `labels.HUMAN_PARTS`; 255 = unknown."""
    saliency: np.ndarray | None = None
    """`(H, W)` uint8: 1 = salient object, 0 = not, 255 = unknown."""
    odd: np.ndarray | None = None
    """`(H, W)` uint8: 1 = of objects that belong to no class (out of distribution), 0 = not, 255 =
    not to be judged."""
    neighbours: tuple[np.ndarray, np.ndarray] | None = None
    """The images before and after this one, of the same size and camera."""
    motions: np.ndarray | None = None
    """`(2, 4, 4)`: from this image's optical frame to those of the neighbours, metres; None = not
    known."""
    intrinsics: Intrinsics | None = None
    """Intrinsics for this image size; None = the camera is unknown."""
    target: bool = False
    """It is of the domain to adapt to, of which no label is known."""
    seed: int = 0
    """Seeds what is still to be drawn for this sample, such as the teacher's colour jitter."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks this sample has labels for."""
        return tuple(t for t, task in TASKS.items() if self.get(task.field) is not None)

    def without(self, *tasks: str) -> Sample:
        """The same sample with the labels of some tasks taken away."""
        return self.having({TASKS[task].field: None for task in tasks})

    def check(self, class_count: int | None = None) -> None:
        """Check types, shapes and values.

        Raises:
            DataError: naming the sample, the field, and what was expected.
        """
        height, width = self.size
        expected: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "image": (np.uint8, (height, width, 3)),
            "odd": (np.uint8, (height, width)),
        }
        for task in TASKS.values():
            expected[task.field] = (task.label_type, task.label_shape(height, width))
        for field, (dtype, shape) in expected.items():
            value = self.get(field)
            if value is not None and (value.dtype != dtype or value.shape != shape):
                raise DataError(
                    f"sample '{self.name}': {field} is {value.dtype} {value.shape}, "
                    f"expected {np.dtype(dtype)} {shape} (the image is {width} x {height})"
                )
        for neighbour in self.neighbours or ():
            if neighbour.dtype != np.uint8 or neighbour.shape != (height, width, 3):
                raise DataError(
                    f"sample '{self.name}': a neighbour is {neighbour.dtype} {neighbour.shape}, "
                    f"expected uint8 {(height, width, 3)}, as its image"
                )
        if self.labels is not None and class_count is not None:
            bad = np.unique(self.labels[(self.labels >= class_count) & (self.labels != UNLABELLED)])
            if bad.size:
                raise DataError(
                    f"sample '{self.name}': label ids {bad.tolist()} are neither classes "
                    f"(0–{class_count - 1}) nor {UNLABELLED} (unlabelled)"
                )
        if self.depth is not None and not (np.isfinite(self.depth).all() and self.depth.min() >= 0):
            raise DataError(f"sample '{self.name}': depth must be finite and ≥ 0 (0 = none)")
        camera = self.intrinsics
        if camera is not None and (camera.height, camera.width) != self.size:
            raise DataError(
                f"sample '{self.name}': the intrinsics are those of a {camera.width} x "
                f"{camera.height} image, this one is {width} x {height}"
            )
