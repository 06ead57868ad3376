"""XTasC-Net's training: what one task's prediction says about another is held against it.

Nakano et al., "Cross-Task Consistency Learning Framework for Multi-Task Learning",
arXiv 2111.14122.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.model_file import ModelSpec
from emu_perception.networks.multitask import DenseOutputs
from emu_perception.networks.xtasc import XTasCNet
from emu_perception.training.config import TrainConfig
from emu_perception.training.data import Batch
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.sample import TASK_FIELDS
from emu_perception.training.targets import Outputs


def transferred_scores_loss(
    transferred: Tensor, direct: Tensor, mask: Tensor, *, soft: bool = False
) -> Tensor:
    """Cross-entropy of transferred class scores against the direct ones, which get no gradient.

    Args:
        transferred, direct: `(B, C, H, W)` scores.
        mask: bool `(B, H, W)`, the pixels that count.
        soft: against the direct softmax (Eq. 13) instead of its arg-max, the authors' code's.
    """
    direct = direct.detach().float()
    target = direct.softmax(1) if soft else direct.argmax(1)
    loss = F.cross_entropy(transferred.float(), target, reduction="none")
    return (loss * mask).sum() / mask.sum().clamp_min(1)


def transferred_depth_loss(transferred: Tensor, direct: Tensor, mask: Tensor) -> Tensor:
    """Mean |transferred − direct| over the mask, the direct one without a gradient.

    Args:
        transferred, direct: `(B, 1, H, W)` in the network's unit of depth.
        mask: bool `(B, H, W)`.
    """
    difference = (transferred.float() - direct.detach().float())[:, 0].abs()
    return (difference * mask).sum() / mask.sum().clamp_min(1)


class TransferModule(MultiTaskModule):
    """Trains an XTasC-Net; `multitask.transfer.loss` chooses the row of its table.

    `consistency` (XTasC-Net): a task's loss is (1 − λ) direct + λ of what the other task's
    prediction says about it, held against the direct prediction. `alignment` (Align-Net): held
    against the label. `observe` (plain multi-task): the transfer networks learn the same, but the
    predictions that they read and are held against get no gradient: they only measure.
    """

    network: XTasCNet

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        settings = config.multitask.transfer
        self.kind, self.weight = settings.loss, settings.weight
        self.soft = settings.soft_target
        strangers = set(self.network.tasks) - {"semantic", "depth"}
        if self.network.transfers and strangers:
            raise ValueError(
                "the transfer losses are those of semantic and depth; for "
                f"{', '.join(sorted(strangers))} set model.arguments.transfer_widths: []"
            )

    def transfer_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        """By the task that is transferred to; empty for one task alone."""
        if not self.network.transfers:
            return {}
        direct = dense.scales[0]
        if self.kind == "observe":
            direct = {task: prediction.detach() for task, prediction in direct.items()}
        targets = self.targets(batch)
        found: dict[str, Tensor] = {}
        for (_, target), transferred in self.network.transfer(direct).items():
            if self.kind == "alignment":
                found[target] = self.losses[target](transferred, *targets[target])
            elif target == "semantic":
                every = torch.ones_like(targets[target][1])
                found[target] = transferred_scores_loss(
                    transferred, direct[target], every, soft=self.soft
                )
            else:
                labelled: Tensor = batch[f"has_{TASK_FIELDS[target]}"]  # type: ignore[literal-required]
                mask = targets[target][1] | ~labelled[:, None, None]
                found[target] = transferred_depth_loss(transferred, direct[target][:, :1], mask)
        return found

    def task_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        found = super().task_losses(dense, batch)
        if not self.training or self.kind == "observe":
            return found
        for task, loss in self.transfer_losses(dense, batch).items():
            self.log(f"train/transferred_{task}", loss, batch_size=len(batch["image"]))
            found[task] = (1 - self.weight) * found[task] + self.weight * loss
        return found

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        if self.kind != "observe":
            return {}
        found = self.transfer_losses(dense, batch)
        return {f"transferred_{task}": self.weight * loss for task, loss in found.items()}

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._disagreement: list[dict[str, Tensor]] = []

    def examine(self, batch: Batch) -> tuple[Outputs, Tensor]:
        if self.network.transfers:
            image = self.normalization(batch["image"])
            self._disagreement.append(disagreement(self.network, self.network.dense(image)))
        return super().examine(batch)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self._disagreement:
            for name in self._disagreement[0]:
                mean = torch.stack([each[name] for each in self._disagreement]).mean()
                self.log(f"validation/inconsistency_{name}", mean, sync_dist=True)


@torch.no_grad()
def disagreement(network: XTasCNet, dense: DenseOutputs) -> dict[str, Tensor]:
    """How far the transferred predictions are from the direct ones.

    Returns:
        `semantic`: the share of pixels whose transferred class is another one. `depth`: the mean of
        |transferred − direct| over the mean of |direct|, in the network's unit of depth.
    """
    direct = dense.scales[0]
    found: dict[str, Tensor] = {}
    for (_, target), transferred in network.transfer(direct).items():
        if target == "semantic":
            other = transferred.argmax(1) != direct[target].argmax(1)
            found[target] = other.float().mean()
        elif target == "depth":
            own = direct[target][:, :1].float()
            found[target] = (transferred.float() - own).abs().mean() / own.abs().mean()
    return found
