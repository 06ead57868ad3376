"""What a run sees is a function of (seed, epoch, index): not of workers, order or interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from emu_perception.data import (
    Augmented,
    Batch,
    Dataset,
    Mixture,
    Source,
    build_dataset,
    make_loader,
)
from emu_perception.data.augmentation import Augmentation
from emu_perception.data.photometric import Photometric

EPOCHS = 3


def augmented(root: Path, seed: int = 4) -> Dataset:
    augmentation = Augmentation((10, 10), photometric=Photometric(noise=4.0))
    return Augmented(build_dataset("camvid", root, "train"), augmentation, seed)


def epochs(loader: DataLoader[Batch], numbers: range = range(EPOCHS)) -> list[Batch]:
    batches = []
    for epoch in numbers:
        loader.sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert one["name"] == other["name"]
        for key in ("image", "labels", "seed"):
            assert torch.equal(one[key], other[key]), key


def test_the_same_for_any_number_of_workers(camvid: Path) -> None:
    loaders = [
        make_loader(augmented(camvid), 4, shuffle=True, seed=9, workers=workers)
        for workers in (0, 1, 2)
    ]
    alone, *others = [epochs(loader) for loader in loaders]
    for other in others:
        assert_same(alone, other)


def test_resuming_at_an_epoch_gives_that_epoch(camvid: Path) -> None:
    whole = epochs(make_loader(augmented(camvid), 4, shuffle=True, workers=1))
    resumed = epochs(make_loader(augmented(camvid), 4, shuffle=True), range(2, 3))
    assert_same(whole[-len(resumed) :], resumed)


def test_an_epoch_that_was_left_early_does_not_disturb_the_next(camvid: Path) -> None:
    expected = epochs(make_loader(augmented(camvid), 2, shuffle=True), range(1, 2))
    loader = make_loader(augmented(camvid), 2, shuffle=True, workers=1)
    loader.sampler.set_epoch(0)
    next(iter(loader))
    assert_same(epochs(loader, range(1, 2)), expected)


def test_epochs_and_seeds_differ(camvid: Path) -> None:
    dataset = augmented(camvid)
    first = dataset[0].image
    dataset.set_epoch(1)
    assert not np.array_equal(first, dataset[0].image)
    dataset.set_epoch(0)
    np.testing.assert_array_equal(first, dataset[0].image)
    assert not np.array_equal(first, augmented(camvid, seed=5)[0].image)
    loader = make_loader(dataset, 15, shuffle=True)
    orders = [tuple(batch["name"]) for batch in epochs(loader, range(5))]
    assert len(set(orders)) == 5
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_a_mixture_in_workers_moves_on_with_the_epoch(camvid: Path) -> None:
    def mixture() -> Dataset:
        sources = [Source(build_dataset("camvid", camvid, s), 0.5) for s in ("train", "val")]
        return Augmented(Mixture(sources, 12, seed=1), Augmentation((8, 8)), seed=2)

    alone = epochs(make_loader(mixture(), 4, shuffle=True))
    assert_same(alone, epochs(make_loader(mixture(), 4, shuffle=True, workers=2)))
    # The validation set has two images: each comes several times in an epoch, in other crops.
    twice = [i for b in alone[:3] for i, n in zip(b["image"], b["name"]) if n == "0016E5_07959"]
    assert len(twice) >= 2
    assert not torch.equal(twice[0], twice[1])


def test_a_lightning_run_sets_the_epoch_also_when_it_is_resumed(
    camvid: Path, tmp_path: Path
) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Recorder(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: list[tuple[int, int]] = []

        def training_step(self, batch: Batch, index: int) -> torch.Tensor:
            self.seen.append((self.current_epoch, int(batch["seed"].sum() % 1_000_003)))
            return self.weight.sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def run(epochs: int, checkpoint: Path | None = None) -> Recorder:
        module = Recorder()
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        loader = make_loader(augmented(camvid), 8, shuffle=True)
        trainer.fit(module, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module

    whole = run(3).seen
    assert len(set(whole)) == len(whole) == 6
    first = run(1).seen
    second = run(3, tmp_path / "last.ckpt").seen
    assert first + second == whole
