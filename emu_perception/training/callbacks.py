"""Callbacks of training: checkpoints that survive a power cut, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from emu_perception.atomic import replacing
from emu_perception.data import Dataset
from emu_perception.data.batch import collate
from emu_perception.prediction import Prediction
from emu_perception.text import one_line
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.settings import ConfigError
from emu_perception.uncertainty import semantic_maps
from emu_perception.visualization.panels import contact_sheet

PICTURES = 3


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are complete or not there, and that run no code when they are loaded."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint to a temporary file and move it to its place when it is on disk.

        Raises:
            OSError: it cannot be written; an earlier checkpoint stays.
        """
        try:
            with replacing(Path(path)) as partial:
                torch.save(checkpoint, partial)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(f"{path} cannot be written: {one_line(str(error), 150)}") from error

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of numbers, texts and containers of these.

        A checkpoint is a pickle, which may run any code. Only torch's restricted reader is used,
        whatever `weights_only` is.

        Raises:
            ConfigError: damaged, or it holds other objects.
        """
        try:
            found = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # damaged ones fail in many ways
            foreign = re.search(r"GLOBAL (\S+)", str(error))
            if foreign:
                raise ConfigError(
                    f"{path} is refused: it holds '{one_line(foreign[1], 60)}', which could run "
                    "code. Resume only from what this training wrote, or start anew with --resume "
                    "never"
                ) from error
            raise ConfigError(
                f"{path} cannot be read as a checkpoint ({one_line(str(error), 100)}): start anew "
                "with --resume never"
            ) from error
        if not isinstance(found, dict) or not {"state_dict", "loops"} <= found.keys():
            raise ConfigError(f"{path} is not a checkpoint of a training run")
        return found


def epoch_checkpoint(folder: Path) -> ModelCheckpoint:
    """One checkpoint after each epoch, in place of the last.

    An epoch that was cut off is done again: everything in it is a function of its number, so the
    result is the same as without the cut.
    """
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


class MovingAverage(WeightAveraging):
    """Averages weights, and the running statistics of norms: see `moving_average`."""

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=moving_average(decay))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Where the module will be: as yet it is on the CPU.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)


def moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Moves averages towards what is now, after so many updates; soon forgets their beginning.

    Runs are short: with a decay of 0.998, 1,500 steps leave a twentieth of what was there at first,
    and a norm's first variance of one outweighs what it becomes. The decay is therefore smaller at
    first, (1 + n) / (10 + n) after n updates, as in TensorFlow's ExponentialMovingAverage.
    """

    def average(averages: Any, now: Any, updates: Tensor | int) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, now, updates)

    return average


class SameProcesses(Callback):
    """Refuses to continue a run with more or fewer processes: `data.batch_size` is that of one."""

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["processes"] = trainer.world_size

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        before = checkpoint.get("processes", trainer.world_size)
        if before != trainer.world_size:
            raise ConfigError(
                f"this run began with {before} processes and would go on with "
                f"{trainer.world_size}, so that a step would see other images: set trainer.devices "
                "and trainer.nodes to as many, or start anew with --resume never"
            )


class Pictures(Callback):
    """Validation images with their predictions, as pictures in TensorBoard."""

    def __init__(self, dataset: Dataset, every: int) -> None:
        self.every = every
        self._dataset = dataset

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.logger is None:
            return
        last = trainer.state.fn != TrainerFn.FITTING or trainer.max_epochs == (
            trainer.current_epoch + 1
        )
        if (trainer.current_epoch + 1) % self.every and not last:
            return
        assert isinstance(pl_module, SupervisedModule)
        count = len(self._dataset)
        chosen = range(0, count, max(count // PICTURES, 1))[:PICTURES]
        pairs = [(self._dataset[i].image, self._predict(pl_module, i)) for i in chosen]
        sheet = contact_sheet(pairs, pl_module.spec.label_set, title="validation")
        writer: Any = getattr(trainer.logger, "experiment", None)
        if hasattr(writer, "add_image"):
            writer.add_image("validation", sheet, trainer.global_step, dataformats="HWC")

    def _predict(self, module: SupervisedModule, index: int) -> Prediction:
        batch = collate([self._dataset[index]], ())
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        outputs = module.outputs(batch)
        maps: dict[str, np.ndarray] = {}
        if outputs.logits is not None:
            found = semantic_maps(outputs.logits[None])
            maps["labels"] = found.labels[0].to(torch.uint8).cpu().numpy()
            maps["confidence"] = found.confidence[0].cpu().numpy()
            maps["semantic_entropy"] = found.entropy[0].cpu().numpy()
        if outputs.mean is not None:
            depth = outputs.mean[0]
            maps["depth"] = depth.masked_fill(depth <= 0, torch.nan).cpu().numpy()
        if outputs.variance is not None:
            maps["depth_variance"] = outputs.variance[0].cpu().numpy()
        return Prediction(**maps)
