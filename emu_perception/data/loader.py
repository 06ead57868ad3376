"""Data loaders whose batches depend on seed and epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import torch
import torch.distributed
from torch.utils.data import DataLoader, DistributedSampler

from emu_perception.data.batch import Batch, collate
from emu_perception.data.dataset import Dataset


class EpochSampler(DistributedSampler[int]):
    """The order of an epoch, a function of seed and epoch, divided among the processes.

    `set_epoch`, which training loops (Lightning's, too) call before each epoch, also reaches the
    data set, so that augmentation, mixtures and endless scenes move on, in a resumed run as well.
    """

    def __init__(self, dataset: Dataset, *, shuffle: bool, seed: int = 0, drop_last: bool = False):
        """`shuffle` is without effect on data sets that shuffle themselves."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=None if distributed else 1,
            rank=None if distributed else 0,
            shuffle=shuffle and not dataset.ordered,
            seed=seed,
            drop_last=drop_last,
        )
        self._dataset = dataset

    def __iter__(self) -> Iterator[int]:
        if not self._dataset.ordered:
            return super().__iter__()
        # A stretch for each process: every n-th sample of a mixture's order has other proportions.
        first, length = self.rank * self.num_samples, len(self._dataset)
        return (index % length for index in range(first, first + self.num_samples))

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self._dataset.set_epoch(epoch)


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # one thread per worker: there is one worker per core


def make_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle: bool,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """A loader of batches (see `Batch`); the same for any number of workers.

    Args:
        dataset: of samples of one size (see `Augmented`, `Resized`), or `batch_size` 1.
        batch_size: per process.
        shuffle: anew in each epoch.
        tasks: whose tensors batches hold; by default those of the data set.
        seed: of the order.
        workers: processes that read and augment; 0 = this one.
        drop_last: leave out the epoch's last batch if it is not full.
        pin_memory: for faster copies to a GPU.
    """
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size,
        sampler=EpochSampler(dataset, shuffle=shuffle, seed=seed, drop_last=drop_last),
        num_workers=workers,
        collate_fn=partial(collate, tasks=tuple(dataset.tasks if tasks is None else tasks)),
        pin_memory=pin_memory,
        drop_last=drop_last,
        worker_init_fn=_start_worker if workers else None,
        persistent_workers=workers > 0,
    )
