"""Randomness that is a function of (seed, epoch, index), whatever the number of workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from emu_perception.data.augmentation import Augmentation
from emu_perception.data.dataset import Dataset, Wrapper
from emu_perception.data.sample import Sample


class SharedEpoch:
    """The number of the epoch, in memory that worker processes share: they live through many
    epochs."""

    def __init__(self) -> None:
        self._value = torch.zeros(1, dtype=torch.int64).share_memory_()

    def get(self) -> int:
        return int(self._value[0])

    def set(self, epoch: int) -> None:
        self._value[0] = epoch


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample's random choices."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, index])))


class Augmented(Wrapper):
    """A data set whose samples are augmented anew in every epoch."""

    def __init__(self, source: Dataset, augmentation: Augmentation, seed: int = 0) -> None:
        super().__init__(source)
        self.augmentation = augmentation
        self.seed = seed
        self._epoch = SharedEpoch()

    def set_epoch(self, epoch: int) -> None:
        self._epoch.set(epoch)
        super().set_epoch(epoch)

    def change(self, sample: Sample, index: int) -> Sample:
        rng = sample_generator(self.seed, self._epoch.get(), index)
        sample = self.augmentation(sample, rng)
        return replace(sample, seed=int(rng.integers(2**63)))
