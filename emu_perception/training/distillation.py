"""The Lightning module of a student: labels, and predictions of a frozen teacher."""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.tasks import TASKS
from emu_perception.training import losses
from emu_perception.training.config import TrainConfig
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.targets import Outputs, Targets, Teacher


class DistillationModule(SupervisedModule):
    """Trains a student EMUFormer on labels and predictions of a frozen teacher (Eq. 6–12)."""

    def __init__(
        self, config: TrainConfig, spec: ModelSpec, network: nn.Module, teacher: Teacher
    ) -> None:
        super().__init__(config, spec, network)
        for name in ("label_set", "camera"):
            mine, its = getattr(spec, name), getattr(teacher.spec, name)
            if mine != its:
                raise ValueError(f"student and teacher differ in {name}: {mine} and {its}")
        missing = set(spec.tasks) - set(teacher.spec.tasks)
        if missing:
            raise ValueError(f"the teacher lacks the task {', '.join(sorted(missing))}")
        self.teacher = teacher
        # A student is taught by its last maps: those of coarser scales have no part.
        self.leaves_parameters_unused = isinstance(network, MultiTaskNetwork)

    def on_fit_start(self) -> None:
        self.teacher.to(self.device)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        found = super().terms(outputs, batch)
        asked = outputs.mutual_information is not None
        seen, camera = batch["image"], batch["intrinsics"]
        targets = self.teacher(seen, batch["seed"], camera, information=asked)
        weights = self.config.loss
        if outputs.logits is not None:
            assert targets.probabilities is not None
            divergence = losses.kl_divergence(targets.probabilities, outputs.logits)
            found["kl"] = weights.kl_weight * divergence
        for task, predicted in outputs.others.items():
            teacher = targets.others[task]
            distance = losses.activated_from_teacher(TASKS[task].kind, predicted, teacher)
            found[f"teacher_{task}"] = weights.kl_weight * distance
        settings = self.config.distillation
        if settings is not None and settings.missing_depth_weight and outputs.mean is not None:
            missing = self._missing_depth(outputs.mean, targets, batch)
            found["missing_depth"] = settings.missing_depth_weight * missing
        # The student's part, and the teacher's that it learns.
        pairs = {"variance": (outputs.variance, targets.variance)}
        if outputs.epistemic_variance is not None:
            assert outputs.variance is not None and targets.variance is not None
            assert targets.epistemic_variance is not None
            aleatoric = targets.variance - targets.epistemic_variance
            pairs = {
                "aleatoric_variance": (outputs.variance - outputs.epistemic_variance, aleatoric),
                "epistemic_variance": (outputs.epistemic_variance, targets.epistemic_variance),
            }
        if outputs.mutual_information is not None:
            information = (outputs.mutual_information, targets.mutual_information)
            pairs["mutual_information"] = information
        for name, (student, taught) in pairs.items():
            if student is not None and taught is not None:
                loss = losses.root_mean_squared_log_error(taught, student)
                found[f"rmsle_{name}"] = weights.rmsle_weight * loss
        return found

    def _missing_depth(self, mean: Tensor, targets: Targets, batch: Batch) -> Tensor:
        """The teacher's depth in place of that of images which have none."""
        assert targets.mean is not None and self.config.distillation is not None
        low, high = self.spec.depth_range
        metres = targets.mean * self.metres_per_unit(batch)
        valid = (metres > low) & (metres < high)
        valid = valid & ~batch["has_depth"][:, None, None]
        if targets.probabilities is not None and self.spec.label_set is not None:
            classes = targets.probabilities.argmax(1)
            for index in self.spec.label_set.without_depth_ids:  # such as the sky
                valid = valid & (classes != index)
        by_variance = self.config.distillation.weight_by_variance
        variance = targets.variance if by_variance else None
        return losses.precision_weighted_log_error(mean, targets.mean, variance, valid)
