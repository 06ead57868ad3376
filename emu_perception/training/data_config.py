"""Settings of data: which samples are trained, validated and calibrated on, and how they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from emu_perception.data.photometric import Photometric
from emu_perception.tasks import Task
from emu_perception.training.settings import Strict


class AnnotationConfig(Strict):
    """Which labels the images of a data set keep: some tasks each, drawn once per seed.

    The regimes of Li et al., "Learning Multiple Dense Prediction Tasks from Partially Annotated
    Data" (CVPR 2022); see `draw_annotation`.
    """

    regime: Literal["one", "random", "ratio"]
    """`one` task each, equally many images per task; `random`: 1 … K − 1 tasks each; `ratio`: one
    task each, in the numbers of `ratio`."""
    tasks: tuple[Task, ...] | None = None
    """That are divided, in the order of `ratio`; labels of others are taken away. None: those of
    `model.tasks`."""
    ratio: tuple[float, ...] | None = None
    """Numbers of images per task, such as [1, 9]."""
    seed: int | None = Field(None, ge=0)
    """None: the run's, the same for all members of an ensemble and all rows of a study's seed. A
    student and a teacher that are to see the same labels need the same number here."""


class PastedConfig(Strict):
    """Things pasted into images, for tests of uncertainty; see `data/pasted.py`."""

    odd: DatasetConfig
    """Cut out of it is what belongs to no class, such as `scenes` with odd_objects."""
    known: DatasetConfig
    classes: tuple[str, ...] = Field(min_length=1)
    """Cut out of `known` are parts of these classes."""
    per_image: int = Field(2, ge=1)
    """Objects of each kind per image."""
    seed: int = Field(0, ge=0)


class DatasetConfig(Strict):
    """One split of one data set."""

    name: str
    """Name of a registered data set (`emu data list`)."""
    root: str | None = None
    """Its folder; `~` and `$VARIABLES` are filled in."""
    split: str
    options: dict[str, Any] = Field({})
    """Options of the data set, such as `classes: 13`."""
    label_set: str | None = None
    """Relabel to these classes."""
    renamed: dict[str, str | list[str]] = Field({})
    """Class of the data set -> class of `label_set`, or the several classes that it covers, where
    the names differ."""
    size: tuple[int, int] | None = None
    """Height and width that its images are brought to first; None: as they are."""
    proportion: float = Field(1.0, gt=0)
    """Relative weight in a mixture."""
    normals_window: int = Field(5, ge=3)
    """Pixels, odd: the neighbourhood that normals are fitted in where they are derived from depth;
    noisy depth (Kinect, stereo) wants more."""
    annotation: AnnotationConfig | None = None
    """Hide the labels of some tasks of training data. None: use all labels."""
    target: bool = False
    """Training data of another domain without labels; see `multitask.adaptation`."""
    pasted: PastedConfig | None = None
    """Paste out-of-distribution and known objects into the images of test data."""

    @property
    def title(self) -> str:
        """Data set and split in words, without the path of this machine."""
        parts = [self.name, self.split]
        if self.name == "folder" and self.root is not None:
            parts = ["/".join(Path(self.root).parts[-2:]).lstrip("$")]
        return " ".join([*parts, *(f"{k}={v}" for k, v in self.options.items() if k == "pattern")])


class AugmentationConfig(Strict):
    """How training samples are changed; see `Augmentation`."""

    scale: tuple[float, float] = (0.5, 2.0)
    flip_probability: float = Field(0.5, ge=0, le=1)
    scale_changes: Literal["camera", "nothing"] = "camera"
    photometric: Photometric | None = None


class DataConfig(Strict):
    """Training, validation and calibration data."""

    train: list[DatasetConfig] = Field(min_length=1)
    """Several are mixed by their proportions."""
    validation: DatasetConfig | None = None
    crop: tuple[int, int]
    """Height and width of training samples."""
    samples_per_epoch: int | None = Field(None, gt=0)
    """Samples per epoch of a mixture; by default the sum of its data sets' sizes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    batch_size: int = Field(8, gt=0)
    """Per process."""
    workers: int = Field(4, ge=0)
    """Processes that read and augment."""

    @field_validator("validation")
    @classmethod
    def _whole(cls, data: DatasetConfig | None) -> DatasetConfig | None:
        if data is not None and data.annotation is not None:
            raise ValueError("annotation hides labels of training data, not those to judge by")
        return data
