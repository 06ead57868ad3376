"""XTasC-Net's training: transferred predictions are compared with the direct ones.

Nakano et al., "Cross-Task Consistency Learning Framework for Multi-Task Learning",
arXiv 2111.14122.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.inference.model_file import load_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.networks.xtasc import XTasCNet
from emu_perception.training.config import TrainConfig
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.settings import ConfigError, expand
from emu_perception.training.targets import Outputs

_CERTAIN = 10.0
"""Score of a class that is taken for true: after the softmax, all but certain."""


def transferred_scores_loss(
    transferred: Tensor, direct: Tensor, mask: Tensor, *, soft: bool = False
) -> Tensor:
    """Cross-entropy of transferred class scores against the direct ones, which get no gradient.

    The mean is over all pixels; those outside the mask count as 0, as in the authors' code.

    Args:
        transferred, direct: `(B, C, H, W)` scores.
        mask: bool `(B, H, W)`, the pixels that count.
        soft: against the direct softmax (Eq. 13) instead of its arg-max, the authors' code's.
    """
    direct = direct.detach().float()
    target = direct.softmax(1) if soft else direct.argmax(1)
    loss = F.cross_entropy(transferred.float(), target, reduction="none")
    return (loss * mask).mean()


def transferred_depth_loss(transferred: Tensor, direct: Tensor, mask: Tensor) -> Tensor:
    """Mean |transferred − direct| over the pixels of the mask, the direct one without a gradient.

    Args:
        transferred, direct: `(B, 1, H, W)` in the network's unit of depth.
        mask: bool `(B, H, W)`.
    """
    difference = (transferred.float() - direct.detach().float())[:, 0].abs()
    return (difference * mask).sum() / mask.sum().clamp_min(1)


class TransferModule(MultiTaskModule):
    """Trains an XTasC-Net; `multitask.transfer.loss` chooses the row of its table.

    `consistency` (XTasC-Net): a task's loss is (1 − λ) direct + λ of its prediction transferred to
    the other task, compared with the direct prediction there: so the authors' code groups the terms
    wherever it weighs tasks. `alignment` (Align-Net): compared with the label. `observe` (plain
    multi-task): the transfer networks learn the same, but the predictions that they read and are
    compared with get no gradient: they only measure. `labels`: they learn from one task's labels to
    the other's, a judge for other runs.
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
        self._judge: list[Any] = []  # not a part of the network: a list hides it from the module

    def on_fit_start(self) -> None:
        path = self.config.multitask.transfer.judge
        if path is not None and self.network.transfers:
            judge: Any = load_model(expand(path)).network
            mine, its = (getattr(x, "channels", None) for x in (self.network, judge))
            if mine != its or not judge.transfers:
                raise ConfigError(f"multitask.transfer.judge: {path} transfers other tasks")
            self._judge = [judge.requires_grad_(False).eval().to(self.device)]

    def transfer_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        """By the task that is transferred from; empty for one task alone."""
        if not self.network.transfers:
            return {}
        targets = self.targets(batch)
        direct = dense.scales[0]
        read = direct
        if self.kind == "observe":
            read = {task: prediction.detach() for task, prediction in direct.items()}
        elif self.kind == "labels":
            read = self.certain(batch)
        found: dict[str, Tensor] = {}
        for (source, target), transferred in self.network.transfer(read).items():
            label, valid = targets[target]
            # Void pixels do not count; of images without a label, all do.
            mask = valid | ~valid.flatten(1).any(1)[:, None, None]
            if self.kind in ("alignment", "labels"):
                found[source] = self.losses[target](transferred, label, valid)
            elif target == "semantic":
                found[source] = transferred_scores_loss(
                    transferred, direct[target], mask, soft=self.soft
                )
            else:
                found[source] = transferred_depth_loss(transferred, direct[target][:, :1], mask)
        return found

    def certain(self, batch: Batch, predictions: Mapping[str, Tensor] | None = None) -> Any:
        """Labels, or in their place predictions, as a judge reads them: classes without a doubt,
        depth where it is known, and the farthest there is elsewhere (the sky)."""
        targets = self.targets(batch)
        (label, known), (depth, valid) = targets["semantic"], targets["depth"]
        if predictions is not None:
            label, depth = predictions["semantic"].argmax(1), predictions["depth"][:, 0].float()
        far = self.network.unit.encode(depth.new_tensor(self.spec.depth_range[1]))
        one_hot = F.one_hot(label.masked_fill(~known, 0), self.network.channels["semantic"])
        scores = _CERTAIN * one_hot.movedim(-1, 1).float() * known[:, None]
        return {"semantic": scores, "depth": torch.where(valid, depth, far)[:, None]}

    def task_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        found = super().task_losses(dense, batch)
        if not self.training or self.kind in ("observe", "labels"):
            return found
        for task, loss in self.transfer_losses(dense, batch).items():
            self.log(f"train/transferred_from_{task}", loss, batch_size=len(batch["image"]))
            found[task] = (1 - self.weight) * found[task] + self.weight * loss
        return found

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        if self.kind not in ("observe", "labels"):
            return {}
        found = self.transfer_losses(dense, batch)
        return {f"transferred_from_{task}": self.weight * loss for task, loss in found.items()}

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._disagreement: dict[str, Tensor] = {}

    def examine(self, batch: Batch) -> tuple[Outputs, Tensor]:
        if self.network.transfers:
            direct = self.network.dense(self.normalization(batch["image"])).scales[0]
            valid = {task: known for task, (_, known) in self.targets(batch).items()}
            found = disagreement(self.network, direct, direct, valid)
            for judge in self._judge:
                judged = disagreement(judge, self.certain(batch, direct), direct, valid)
                found |= {f"judged_{name}": value for name, value in judged.items()}
            for name, value in found.items():
                self._disagreement[name] = self._disagreement.get(name, 0) + value
        return super().examine(batch)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        for name, value in self._disagreement.items():
            gather: Any = self.all_gather
            error, total = gather(value).reshape(-1, 2).sum(0)
            if total > 0:
                self.log(f"validation/inconsistency_{name}", (error / total).float())


@torch.no_grad()
def disagreement(
    network: XTasCNet,
    read: dict[str, Tensor],
    direct: Mapping[str, Tensor],
    valid: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """How far the transferred predictions are from the direct ones, where there are labels.

    Args:
        network: its transfer networks are used.
        read: the predictions as they read them.
        direct: the raw predictions, by task.
        valid: bool `(B, H, W)` by task, the pixels that count.

    Returns:
        Numerator and denominator by task. `semantic`: pixels whose transferred class is another
        one, and all. `depth`: the sums of |transferred − direct| and of |direct|, in the network's
        unit of depth.
    """
    found: dict[str, Tensor] = {}
    for (_, target), transferred in network.transfer(read).items():
        mask = valid[target]
        if target == "semantic":
            other = transferred.argmax(1) != direct[target].argmax(1)
            sums = [(other & mask).sum(), mask.sum()]
        else:
            own = direct[target][:, 0].float()
            error = (transferred[:, 0].float() - own).abs()
            sums = [(error * mask).sum(), (own.abs() * mask).sum()]
        found[target] = torch.stack([each.float() for each in sums])
    return found
