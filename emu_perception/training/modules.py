"""The Lightning module of supervised training, which all others build on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.data.sample import DataError
from emu_perception.inference.engines.activation import Normalization
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.depth_unit import DepthUnit, Metres
from emu_perception.networks.raw_outputs import RawOutputs
from emu_perception.tasks import TASKS, WITH_UNCERTAINTY
from emu_perception.training import (
    balancing,  # noqa: F401  (registers weightings)
    losses,
)
from emu_perception.training.config import TrainConfig
from emu_perception.training.ground_plane import ground_loss
from emu_perception.training.multitask.task_losses import choose_losses
from emu_perception.training.targets import Outputs, activate
from emu_perception.training.validation import class_iou, find_validation
from emu_perception.training.weighting import build_weighting, negative_losses

CLASS_IOU = "validation/iou/"
"""Prefix of the logged IoU of each class."""
_STEP_SEED = 1_000_003
"""A prime, so that the seeds of steps and of processes do not meet."""
_TASK_OF_TERM = {
    "cross_entropy": "semantic",
    "depth_gaussian": "depth",
    "depth_mse": "depth",
    "depth_huber": "depth",
}
"""The terms of the labels, which the weighting of tasks is about; those of other tasks have their
names."""


def fuses_optimizer(precision: str) -> bool:
    """Whether a step is one pass over all weights: under mixed precision Lightning would then
    refuse to clip."""
    return not precision.endswith("-mixed") and precision != "16-true"


class SupervisedModule(L.LightningModule):
    """Trains SegFormer, DepthFormer or SegDepthFormer with cross-entropy and a depth loss.

    Everything that is random in a step is drawn from the run's seed and the step's number, so that
    a resumed run goes on as if it had never stopped.
    """

    leaves_parameters_unused = False
    """True where a step leaves some parameters without a gradient."""

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        # Convolutions and resampling on a CPU are up to twice as fast with the channels innermost.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalization = Normalization(spec)
        self.classes = len(spec.label_set) if spec.label_set and "semantic" in spec.tasks else None
        self.label_groups: tuple[tuple[int, ...], ...] = ()
        """Coarse labels of the training data: see `Dataset.label_groups`."""
        self._metrics = {task: find_validation(task) for task in spec.tasks}
        self._channels = {task: TASKS[task].channel_count(self.classes) for task in spec.tasks}
        self._sums: dict[str, Tensor] = {}
        self._class_weights: Tensor | None
        names = spec.label_set.names if spec.label_set else ()
        weights_of_classes = losses.class_weights(config.loss.class_weights, names)
        self.register_buffer("_class_weights", weights_of_classes, persistent=False)
        ground = config.loss.ground_class
        if config.loss.ground_weight and self.classes is not None and ground not in names:
            raise ValueError(
                f"loss.ground_weight needs the class '{ground}', which the training data do not "
                f"have: name another one as loss.ground_class, or remove loss.ground_weight; the "
                f"classes are {', '.join(names)}"
            )
        chosen = config.multitask.weighting
        weights: dict[str, float] = dict(chosen.weights)  # type: ignore[arg-type]
        self.weighting = build_weighting(chosen.name, spec.tasks, weights, **chosen.arguments)
        others = [task for task in spec.tasks if task not in WITH_UNCERTAINTY]
        self.losses = choose_losses(config.multitask.losses, others)
        """Losses of the tasks other than classes and depth; `MultiTaskModule` has those of all."""
        self.labelled_tasks: tuple[str, ...] = tuple(spec.tasks)
        """Tasks that are trained by labels."""
        below_zero = self.below_zero()
        if self.weighting.positive and below_zero is not None:
            raise ValueError(negative_losses(chosen.name, below_zero))

    def below_zero(self) -> str | None:
        """Which of the tasks' losses can fall below 0, in words."""
        likelihood = self.config.loss.depth == "gaussian" and "depth" in self.spec.tasks
        return "loss.depth: gaussian can be" if likelihood else None

    def run_network(self, image: Tensor) -> RawOutputs:
        """Raw maps `(B, C, h, w)` of a batch; where it is not training, members may lead."""
        return self.network(image)

    def activate(self, raw: RawOutputs, size: tuple[int, int]) -> Outputs:
        """Raw maps to activated ones at a size."""
        return activate(raw, size, self.classes)

    def outputs(self, batch: Batch) -> Outputs:
        """Activated maps of a batch at the size of its images."""
        image = batch["image"]
        if self.spec.rays and not bool(batch["has_intrinsics"].all()):
            unknown = [
                n for n, h in zip(batch["name"], batch["has_intrinsics"], strict=True) if not h
            ]
            raise DataError(
                f"the network takes the rays of cameras, and '{unknown[0]}' has none; train "
                "without model.arguments.rays, or give its data set a camera (CamVid: focal_ratio)"
            )
        raw = self.run_network(self.normalization(image, batch["intrinsics"]))
        return self.activate(raw, (image.shape[-2], image.shape[-1]))

    def depth_target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`(B, H, W)` depth in the network's unit, and where it is valid."""
        depth, valid = batch["depth"], batch["depth_valid"]
        low, high = self.spec.depth_range
        valid = valid & (depth > low) & (depth < high)
        if self.spec.camera is None:
            return depth, valid
        # Metres of an unknown camera cannot be converted to canonical depth.
        known = batch["has_intrinsics"][:, None, None]
        return depth / self.metres_per_unit(batch), valid & known

    def metres_per_unit(self, batch: Batch) -> Tensor:
        """`(B, 1, 1)`: f / f0, what a network's depth is multiplied by; 1 for unknown cameras."""
        intrinsics, known = batch["intrinsics"], batch["has_intrinsics"]
        ratio = torch.ones_like(intrinsics[:, 0])
        if self.spec.camera is not None:
            own = self.spec.camera.metres_per_unit(intrinsics[:, 0], intrinsics[:, 1])
            ratio = torch.where(known, own, ratio)
        return ratio[:, None, None]

    def targets(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Target and valid pixels `(B, H, W)` by labelled task, depth in the network's unit."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for task in self.labelled_tasks:
            if task == "depth":
                metres, valid = self.depth_target(batch)
                unit: DepthUnit = getattr(self.network, "unit", Metres())
                safe = metres.masked_fill(~valid, 1.0)
                found[task] = unit.encode(safe).masked_fill(~valid, 0.0), valid
            else:
                field = TASKS[task].field
                found[task] = batch[field], batch[f"{field}_valid"]  # type: ignore[literal-required]
        return found

    def factor(self, task: str) -> float | Tensor:
        """Weight of a loss in the unit of a task's loss."""
        return self.config.loss.weights.get(task, 1.0) * self.weighting.factor(task)

    def labelled(self, batch: Batch) -> Tensor:
        """bool `(K,)`: for which of the weighting's tasks a batch has labels at all."""
        targets = self.targets(batch)
        return torch.stack([targets[task][1].any() for task in self.weighting.tasks])

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        return self.label_terms(outputs, batch)

    def label_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the ground truth."""
        weights, found = self.config.loss, {}
        if outputs.logits is not None:
            entropy = losses.cross_entropy(
                outputs.logits, batch["labels"], self._class_weights, self.label_groups
            )
            found["cross_entropy"] = weights.semantic_weight * entropy
        if outputs.mean is not None:
            target, valid = self.depth_target(batch)
            if weights.depth == "gaussian":
                if outputs.variance is None:
                    raise ValueError("the loss 'gaussian' needs a network with a depth variance")
                loss = self._ramp() * losses.gaussian_nll(
                    outputs.mean, outputs.variance, target, valid, weights.beta
                )
            elif weights.depth == "mse":
                loss = losses.mean_squared_error(outputs.mean, target, valid)
            else:
                loss = losses.huber(outputs.mean, target, valid)
            found[f"depth_{weights.depth}"] = weights.depth_weight * loss
            if weights.log_weight:
                relative = losses.log_l1(outputs.mean, target, valid)
                relative = relative + losses.scale_invariant_log(outputs.mean, target, valid)
                found["depth_log"] = weights.log_weight * relative / 2
            if weights.gradient_weight:
                edges = losses.log_gradient(outputs.mean, target, valid)
                found["depth_gradient"] = weights.gradient_weight * edges
            if weights.ground_weight and outputs.logits is not None:
                found["ground"] = weights.ground_weight * self._ground(outputs.mean, batch)
        for task, raw in outputs.others_raw.items():
            field = TASKS[task].field
            target, valid = batch[field], batch[f"{field}_valid"]  # type: ignore[literal-required]
            found[task] = self.losses[task](raw, target, valid)
        return found

    def _progress(self) -> float:
        """Fraction of the training's steps that are done."""
        return self.trainer.global_step / max(1.0, float(self.trainer.estimated_stepping_batches))

    def _ramp(self) -> float:
        """The weight of the likelihood so far in the training."""
        ramp = self.config.loss.gaussian_ramp
        if ramp is None or not self.training:
            return 1.0
        begin, end = ramp
        return min(1.0, max(0.0, (self._progress() - begin) / max(end - begin, 1e-9)))

    def _ground(self, mean: Tensor, batch: Batch) -> Tensor:
        """Loss of the road's plane in images without depth labels."""
        settings = self.config.loss
        assert self.spec.label_set is not None
        road = batch["labels"] == self.spec.label_set.index(settings.ground_class)
        road = road & ~batch["has_depth"][:, None, None]
        known = batch["has_intrinsics"]
        metres = mean * self.metres_per_unit(batch)
        camera = (settings.camera_height, settings.camera_tilt)
        return ground_loss(metres, road, batch["intrinsics"], known, *camera)

    def on_train_epoch_start(self) -> None:
        start = self.config.trainer.freeze_norms_from
        if start is not None and self.current_epoch >= start * self.config.trainer.epochs:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = self.trainer.fit_loop.total_batch_idx + 1
        torch.manual_seed((self.config.seed * _STEP_SEED + step) * 1024 + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs = self.outputs(batch)
        terms = self.terms(outputs, batch)
        tasks = {**_TASK_OF_TERM, **{task: task for task in outputs.others}}
        of_tasks = {tasks[name]: term for name, term in terms.items() if name in tasks}
        shared = list(self.network.get_submodule("encoder").parameters())
        total = self.weighting(of_tasks, shared, self.labelled(batch))
        for name, term in terms.items():
            if name not in tasks:
                total = total + term
        size = len(batch["image"])
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        self.log_dict({f"train/{k}": v for k, v in terms.items()}, batch_size=size)
        if outputs.mean is not None:
            dead = (outputs.mean == 0).float().mean()
            self.log("train/dead_depth_pixels", dead, batch_size=size)
        return total

    def on_train_epoch_end(self) -> None:
        self.weighting.on_epoch_end()

    def examine(self, batch: Batch) -> tuple[Outputs, Tensor]:
        """Outputs and loss of a validation batch, by its labels."""
        outputs = self.outputs(batch)
        return outputs, torch.stack(list(self.label_terms(outputs, batch).values())).sum()

    def on_validation_epoch_start(self) -> None:
        # MPS has no float64.
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        self._sums = {
            task: torch.zeros(metric.shape(self._channels[task]), dtype=kind, device=self.device)
            for task, metric in self._metrics.items()
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs, total = self.examine(batch)
        size = len(batch["image"])
        self.log("validation/loss", total, prog_bar=True, batch_size=size, sync_dist=True)
        maps = {"semantic": outputs.logits, "depth": outputs.mean, **outputs.others}
        for task, metric in self._metrics.items():
            predicted, field = maps.get(task), TASKS[task].field
            if predicted is None:
                continue
            target, valid = batch[field], batch[f"{field}_valid"]  # type: ignore[literal-required]
            if task == "depth":
                target, valid = self.depth_target(batch)
                predicted = (predicted - target) * self.metres_per_unit(batch)
                target = torch.zeros_like(target)
            self._sums[task] += metric.count(predicted, target, valid)

    def on_validation_epoch_end(self) -> None:
        gather: Any = self.all_gather
        sums = {k: gather(v).reshape(-1, *v.shape).sum(0) for k, v in self._sums.items()}
        found = {m.name: m.figure(sums[task]) for task, m in self._metrics.items()}
        known = {f"validation/{k}": v.float() for k, v in found.items() if v is not None}
        self.log_dict(known, prog_bar=True)
        if "semantic" in sums and self.spec.label_set is not None:
            for name, iou, occurs in zip(self.spec.label_set.names, *class_iou(sums["semantic"])):
                if occurs:
                    self.log(f"{CLASS_IOU}{name}", iou.float())

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameters and their learning rates: the encoder's, and those of all the rest."""
        settings = self.config.optimizer
        encoder = list(self.network.get_submodule("encoder").parameters())
        inside = {id(p) for p in encoder}
        heads = [p for p in self.parameters() if id(p) not in inside]
        return [
            {"params": encoder, "lr": settings.learning_rate},
            {"params": heads, "lr": settings.learning_rate * settings.head_factor},
        ]

    def rate_factors(self, steps: int) -> list[Callable[[int], float]]:
        """Functions from step to learning rate factor, for each of the `optimizer_groups`."""
        settings = self.config.optimizer

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / (settings.warmup_steps + 1))
            if settings.schedule == "constant":
                return rise
            if settings.schedule == "step":
                return rise * settings.step_factor ** (step // settings.step_size)
            return rise * max(0.0, 1 - step / steps) ** settings.power

        return [factor] * len(self.optimizer_groups())

    def configure_optimizers(self) -> Any:
        settings = self.config.optimizer
        kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
        optimizer = kinds[settings.name](
            self.optimizer_groups(),
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=fuses_optimizer(self.config.trainer.precision),
        )
        factors = self.rate_factors(int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
