"""Depth from image sequences without labels, together with tasks that have labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.pose import PoseNetwork
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.training.config import TrainConfig
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.multitask.view_synthesis import (
    reprojection_loss,
    smoothness,
    synthesize,
)
from emu_perception.training.targets import Outputs


class SelfSupervisedModule(MultiTaskModule):
    """Trains a network's depth on neighbouring images and its other tasks on their labels.

    The depth of an image and the motion to its neighbours make the image from them (Monodepth2;
    DenseMTL, Table 5). A network predicts the motion, and both come without a scale: validation
    scales each image's depth to the labels' median, as is usual. With `poses: given` the data has
    the motion, and depth is in metres.
    """

    leaves_parameters_unused = True  # those of depth and pose, by a batch without neighbours

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        settings = config.multitask.self_supervision
        assert settings is not None
        self.settings = settings
        if "depth" not in self.network.tasks:
            raise ValueError("multitask.self_supervision teaches depth: model.tasks lacks it")
        if self.network.depth_variance:
            raise ValueError(
                "multitask.self_supervision knows no error of depth: set "
                "model.arguments.depth_variance: false"
            )
        self.labelled_tasks = tuple(task for task in self.network.tasks if task != "depth")
        self.pose: nn.Module | None = None
        if settings.poses == "learned":
            self.pose = PoseNetwork(settings.pose_backbone, config.model.initial_depth)

    def labelled(self, batch: Batch) -> Tensor:
        targets = self.targets(batch) | {"depth": (batch["image"], self._with_neighbours(batch))}
        return torch.stack([targets[task][1].any() for task in self.weighting.tasks])

    def _with_neighbours(self, batch: Batch) -> Tensor:
        """bool `(B,)`: the images that depth can be trained on."""
        known = batch["has_intrinsics"]
        if "neighbours" not in batch:
            return torch.zeros_like(known)
        if self.pose is None:
            if "motions" not in batch:
                return torch.zeros_like(known)
            known = known & batch["motions"].isfinite().flatten(1).all(1)
        return known & batch["has_neighbours"] if "has_neighbours" in batch else known

    def task_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        return super().task_losses(dense, batch) | {"depth": self.depth_loss(dense, batch)}

    def depth_loss(self, dense: DenseOutputs, batch: Batch) -> Tensor:
        """Mean over the scales, and over the images that have neighbours and a camera."""
        known = self._with_neighbours(batch)
        if not known.any():
            return 0.0 * dense.scales[0]["depth"].sum()
        image = batch["image"][known]
        neighbours = batch["neighbours"][known].unbind(1)
        intrinsics = batch["intrinsics"][known]
        motions = self._motions(image, neighbours, batch, known)
        target = image.float() / 255
        sources = [neighbour.float() / 255 for neighbour in neighbours]
        size = (image.shape[-2], image.shape[-1])
        losses = []
        for level, maps in enumerate(maps for maps in dense.scales if "depth" in maps):
            raw = self.network.full_size(maps["depth"][known].float(), size)
            depth = self.network.unit.decode(raw)[:, 0]
            low, high = self.spec.depth_range
            depth = depth.clamp(max(low, 1e-3), high)
            views = [
                synthesize(source, depth, intrinsics, motion)
                for source, motion in zip(sources, motions, strict=True)
            ]
            error = reprojection_loss(target, views, sources, self.settings.ssim_share)
            smooth = smoothness(depth, target) * self.settings.smoothness / 2**level
            losses.append((error + smooth).mean())
        return torch.stack(losses).mean()

    def _motions(
        self, image: Tensor, neighbours: Sequence[Tensor], batch: Batch, known: Tensor
    ) -> Sequence[Tensor]:
        """`(b, 4, 4)` to each neighbour, of the images that depth can be trained on."""
        if self.pose is None:
            return batch["motions"][known].unbind(1)
        before, here, after = (self.normalization(x) for x in (neighbours[0], image, neighbours[1]))
        # Pairs in the order of time, so that the network knows one direction only.
        return torch.linalg.inv(self.pose(before, here)), self.pose(here, after)

    def examine(self, batch: Batch) -> tuple[Outputs, Tensor]:
        outputs, total = super().examine(batch)
        if outputs.mean is None or not batch["has_depth"].any() or self.pose is None:
            return outputs, total
        target, valid = self.depth_target(batch)
        mean = outputs.mean.clone()
        for index, chosen in enumerate(valid):
            if chosen.any():
                own = mean[index][chosen].median().clamp_min(1e-6)
                mean[index] *= target[index][chosen].median() / own
        return outputs._replace(mean=mean), total

    def optimizer_groups(self) -> list[dict[str, Any]]:
        encoder, heads = super().optimizer_groups()
        if self.pose is None:
            return [encoder, heads]
        pose = list(self.pose.parameters())
        inside = {id(p) for p in pose}
        heads["params"] = [p for p in heads["params"] if id(p) not in inside]
        # The pose network is an encoder too.
        return [
            encoder,
            heads,
            {"params": pose, "lr": self.settings.learning_rate or encoder["lr"]},
        ]
