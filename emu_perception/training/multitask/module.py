"""The Lightning module of every `MultiTaskNetwork`."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.training import losses
from emu_perception.training.config import TrainConfig
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.multitask.task_losses import choose_losses
from emu_perception.training.targets import Outputs, activate
from emu_perception.uncertainty import activate_depth


class MultiTaskModule(SupervisedModule):
    """Trains all tasks of a network at all scales that it gives, with one loss per task.

    A method with losses between tasks overrides `extra_terms`, and `optimizer_groups` where its
    modules want a learning rate of their own.
    """

    network: MultiTaskNetwork

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        self.losses = choose_losses(config.multitask.losses, self.network.tasks)

    def below_zero(self) -> str | None:
        return None

    def factor(self, task: str) -> float | Tensor:
        return self.weighting.factor(task)

    def task_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        """Each task's loss before any weight, averaged over the scales that predict the task."""
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        full_size = self.network.full_size
        found: dict[str, Tensor] = {}
        for task, (target, valid) in self.targets(batch).items():
            predictions = [maps[task] for maps in dense.scales if task in maps]
            found[task] = sum(
                (self.losses[task](full_size(p, size), target, valid) for p in predictions),
                start=batch["image"].new_zeros((), dtype=target.float().dtype),
            ) / len(predictions)
        return found

    def variance_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        """The Gaussian likelihood that trains the predictive variance; it leaves the mean alone."""
        if not self.network.depth_variance:
            return {}
        raw = self.network.raw_outputs(dense.scales[0])["depth"]
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        mean, variance = activate_depth(self.network.full_size(raw, size))
        loss = losses.gaussian_nll(mean.detach(), variance, *self.depth_target(batch))
        return {"depth_variance": self.config.multitask.variance_weight * loss}

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses in addition to those of the single tasks; none here."""
        return {}

    def dense(self, batch: Batch) -> DenseOutputs:
        """Outputs of the network for a training batch."""
        return self.network.dense(self.normalization(batch["image"]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        dense = self.dense(batch)
        found = self.task_losses(dense, batch)
        shared = list(self.network.encoder.parameters())
        total = self.weighting(found, shared, self.labelled(batch))
        others = self.variance_terms(dense, batch) | self.extra_terms(dense, batch)
        for term in others.values():
            total = total + term
        size = len(batch["image"])
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        self.log_dict({f"train/{k}": v for k, v in (found | others).items()}, batch_size=size)
        return total

    def examine(self, batch: Batch) -> tuple[Outputs, Tensor]:
        image = batch["image"]
        dense = self.network.dense(self.normalization(image))
        weights = self.weighting.weights
        found = [weights[t] * loss for t, loss in self.task_losses(dense, batch).items()]
        raw = self.network.raw_outputs(dense.scales[0])
        size = (image.shape[-2], image.shape[-1])
        return activate(raw, size, self.classes), sum(found[1:], start=found[0])

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        gates = [p for name, p in self.network.named_parameters() if name.endswith(".alpha")]
        if gates:  # how far the exchange between tasks has opened
            mean = torch.cat([gate.detach().abs().flatten() for gate in gates]).mean()
            self.log("validation/mean_gate", mean)
