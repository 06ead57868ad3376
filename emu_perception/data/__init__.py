"""Data sets behind one interface: samples by index, by name, in batches."""

from emu_perception.data import (  # noqa: F401  (registers them)
    camvid,
    cityscapes,
    drives,
    folder,
    mtan,
    nyuv2,
    pascal_context,
    scenes,
    sparse_depth,
    synthia,
    video,
    virtual_kitti,
)
from emu_perception.data.batch import Batch, collate
from emu_perception.data.catalogue import (
    build_dataset,
    check_dataset,
    dataset_entry,
    dataset_names,
    register_dataset,
)
from emu_perception.data.dataset import (
    Dataset,
    Problem,
    Subset,
    Wrapper,
)
from emu_perception.data.loader import EpochSampler, make_loader
from emu_perception.data.mixture import Mixture, Source
from emu_perception.data.partial import PartiallyAnnotated
from emu_perception.data.pasted import Pasted
from emu_perception.data.randomness import Augmented
from emu_perception.data.wrappers import (
    Derived,
    Relabelled,
    Resized,
    Target,
    derive,
    ignored_fraction,
    unmatched_classes,
)

__all__ = [
    "Augmented",
    "Batch",
    "Dataset",
    "Derived",
    "EpochSampler",
    "Mixture",
    "PartiallyAnnotated",
    "Pasted",
    "Problem",
    "Relabelled",
    "Resized",
    "Source",
    "Subset",
    "Target",
    "Wrapper",
    "build_dataset",
    "check_dataset",
    "collate",
    "dataset_entry",
    "dataset_names",
    "derive",
    "ignored_fraction",
    "make_loader",
    "register_dataset",
    "unmatched_classes",
]
