"""From a configuration's data sets to loaders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from emu_perception.data import (
    Augmented,
    Batch,
    Dataset,
    Mixture,
    PartiallyAnnotated,
    Pasted,
    Relabelled,
    Resized,
    Source,
    Target,
    build_dataset,
    derive,
    make_loader,
)
from emu_perception.data.augmentation import Augmentation
from emu_perception.data.probe import check_borders, check_supervision
from emu_perception.labels import load_label_set
from emu_perception.training.data_config import DataConfig, DatasetConfig
from emu_perception.training.settings import expand

ANNOTATION_FILE = "annotation_{}.json"
"""File with the labels that the images of a training set keep, by its number."""


def open_dataset(config: DatasetConfig) -> Dataset:
    """The split that a configuration names, in its classes.

    Raises:
        ValueError: name, option, split or folder do not suit, or labels are to be hidden from it:
            only `training_set` does so.
    """
    if config.annotation is not None:
        raise ValueError(
            f"{config.title}: annotation hides labels of training data, not those to judge by"
        )
    dataset = _open(config)
    wanted = config.pasted
    if wanted is None:
        return dataset
    odd, known = open_dataset(wanted.odd), open_dataset(wanted.known)
    return Pasted(dataset, odd, known, wanted.classes, wanted.per_image, wanted.seed)


def _open(config: DatasetConfig) -> Dataset:
    root = None if config.root is None else expand(config.root)
    dataset: Dataset = build_dataset(config.name, root, config.split, **config.options)
    dataset.normals_window = config.normals_window
    if config.label_set is not None and dataset.label_set is not None:
        dataset = Relabelled(dataset, load_label_set(config.label_set), config.renamed)
    return dataset if config.size is None else Resized(dataset, config.size)


def annotated(
    dataset: Dataset,
    config: DatasetConfig,
    tasks: Sequence[str],
    seed: int,
    path: Path | None = None,
) -> Dataset:
    """A training set with the labels that it keeps.

    Args:
        dataset: with those of the tasks that can be derived.
        config: of the set.
        tasks: of the model.
        seed: of the annotation, where the configuration names none.
        path: JSON file that keeps the annotation.

    Raises:
        ValueError: the set has no labels for a task that is to be divided.
        DataError: the file keeps the annotation of something else.
    """
    if config.target:
        return Target(dataset)
    wanted = config.annotation
    if wanted is None:
        return dataset
    return PartiallyAnnotated(
        dataset,
        wanted.tasks or tasks,
        wanted.regime,
        seed=seed if wanted.seed is None else wanted.seed,
        ratio=wanted.ratio,
        path=path,
    )


def training_set(
    config: DataConfig,
    tasks: Sequence[str],
    seed: int,
    folder: Path | None = None,
    self_supervised: Collection[str] = (),
    canonical: bool = False,
) -> Dataset:
    """All training data as one data set, not augmented.

    Args:
        config: of the data.
        tasks: of the model.
        seed: of a mixture's order, and of partial annotations that name none.
        folder: keeps partial annotations, as `annotation_0.json` and so on.
        self_supervised: those of the tasks that image sequences teach.
        canonical: depth is trained for a canonical focal length.

    Raises:
        ValueError: a task that no data set has labels for, or no sequences; or a few samples show
            that the labels teach nothing, or that padding would tell domains apart.
    """
    full = [derive(_open(each), tasks) for each in config.train]
    opened = [
        annotated(dataset, each, tasks, seed, folder and folder / ANNOTATION_FILE.format(number))
        for number, (dataset, each) in enumerate(zip(full, config.train, strict=True))
    ]
    if self_supervised and not any(dataset.sequences for dataset in opened):
        raise ValueError(
            f"{', '.join(self_supervised)} without labels needs image sequences, which none of "
            f"{', '.join(each.title for each in config.train)} has; `scene_drives` has them, some "
            "others with the option sequences: true"
        )
    labelled = [task for task in tasks if task not in self_supervised]
    unsupervised = [t for t in labelled if not any(t in dataset.tasks for dataset in opened)]
    if unsupervised:
        had = "; ".join(
            f"{each.title} has {', '.join(dataset.tasks) or 'none'}"
            for each, dataset in zip(config.train, opened, strict=True)
        )
        raise ValueError(
            f"model.tasks contains {', '.join(unsupervised)}, which the training data cannot "
            f"supervise: {had}"
        )
    named = [(each.title, dataset) for each, dataset in zip(config.train, full, strict=True)]
    teaching = [pair for pair, each in zip(named, config.train, strict=True) if not each.target]
    check_supervision(teaching, labelled, ("depth",) if canonical else ())
    if len(teaching) < len(named):
        check_borders(named, config.crop, config.augmentation.scale[0])
    if len(opened) == 1 and config.samples_per_epoch is None:
        return opened[0]
    length = config.samples_per_epoch or sum(len(dataset) for dataset in opened)
    sources = [Source(d, c.proportion) for d, c in zip(opened, config.train, strict=True)]
    return Mixture(sources, length, seed)


class DataModule(L.LightningDataModule):
    """Augmented training batches, and validation images one by one at the network's size.

    Order and augmentation are functions of (seed, epoch, index), whatever the number of workers.
    Partial annotations are kept in `folder`, where one is given.
    """

    def __init__(
        self,
        config: DataConfig,
        tasks: tuple[str, ...],
        input_size: tuple[int, int],
        seed: int,
        folder: Path | None = None,
        self_supervised: Collection[str] = (),
        canonical: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.tasks, self.seed = config, tasks, seed
        self.next_epoch = 0
        self.training = training_set(config, tasks, seed, folder, self_supervised, canonical)
        self.validation: Dataset | None = None
        if config.validation is not None:
            judged = derive(open_dataset(config.validation), tasks)
            self.validation = Resized(judged, input_size)
        augmentation = Augmentation(size=config.crop, **dict(config.augmentation))
        self.augmented = Augmented(self.training, augmentation, seed)
        if len(self.augmented) < config.batch_size:
            raise ValueError(
                f"the training data has {len(self.augmented)} samples, less than a batch of "
                f"{config.batch_size}: lower data.batch_size"
            )

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint at the end of an epoch."""
        assert self.trainer is not None
        return {"next_epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_epoch = state_dict["next_epoch"]

    def train_dataloader(self) -> DataLoader[Batch]:
        loader = make_loader(
            self.augmented,
            self.config.batch_size,
            shuffle=True,
            tasks=self.tasks,
            seed=self.seed,
            workers=self.config.workers,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
        )
        # Lightning starts workers before it sets the epoch.
        loader.sampler.set_epoch(self.next_epoch)  # type: ignore[attr-defined]
        return loader

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        if self.validation is None:
            return []
        return make_loader(
            self.validation,
            1,
            shuffle=False,
            tasks=self.tasks,
            workers=min(self.config.workers, 2),
        )
