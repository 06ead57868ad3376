"""Training on partially annotated images: what a second view's predictions must agree with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.model_file import ModelSpec
from emu_perception.networks.decoder import resize
from emu_perception.networks.multitask import DenseOutputs
from emu_perception.training.config import TrainConfig
from emu_perception.training.data import Batch
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.multitask.pairs import (
    METHODS,
    Pair,
    pairs_of_batch,
    perturbation_loss,
)
from emu_perception.training.multitask.views import closer_view, draw_windows, look_into
from emu_perception.training.sample import TASK_FIELDS


class PartialModule(MultiTaskModule):
    """Trains any multi-task network with one of MTPSL's methods, named in `multitask.partial`.

    The labels that an image has supervise the first view; the losses between tasks act on a second
    one, closer, as in Li et al., CVPR 2022. Single-task and supervised rows need no method: they
    are `MultiTaskModule`'s.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        settings = config.multitask.partial
        assert settings is not None
        self.settings = settings
        if len(self.network.tasks) < 2:
            raise ValueError("multitask.partial is about several tasks: model.tasks has one")
        self.pairs: nn.Module | None = None
        if settings.method != "perturbation":
            channels = self.network.channels
            if "depth" in channels:
                channels = channels | {"depth": 1}
            build: Any = METHODS[settings.method]
            try:
                self.pairs = build(channels, self._feature_channels(), **settings.arguments)
            except TypeError as error:
                raise ValueError(f"multitask.partial.arguments: {error}") from error

    @torch.no_grad()
    def _feature_channels(self) -> int:
        training = self.network.training
        shared = self.network.eval().dense(torch.zeros(1, 3, 64, 64)).shared
        self.network.train(training)
        if shared is None:
            raise ValueError(
                f"'{self.spec.architecture}' has no shared features, which multitask.partial needs"
            )
        return shared.shape[1]

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        windows = draw_windows(len(batch["image"]), size)
        view = closer_view(batch, windows, self.config.data.augmentation.scale_changes)
        seen = self.network.dense(self.normalization(view["image"]))
        predictions = {task: resize(raw.float(), size) for task, raw in seen.scales[0].items()}
        if self.pairs is None:
            first = {task: resize(raw.float(), size) for task, raw in dense.scales[0].items()}
            loss = self._perturbation(predictions, first, windows, batch)
        else:
            assert seen.shared is not None
            loss = self._pairs(self.pairs, predictions, seen.shared, view)
        return {self.settings.method: self.settings.weight * loss}

    def _has(self, view: Batch) -> dict[str, Tensor]:
        """Which images have labels that are dense enough to be mapped, by task."""
        found = {}
        for task in self.network.tasks:
            field = TASK_FIELDS[task]
            share = view[f"{field}_valid"].float().mean(dim=(1, 2))  # type: ignore[literal-required]
            found[task] = view[f"has_{field}"] & (share >= self.settings.dense_share)  # type: ignore[literal-required]
        return found

    def _pairs(
        self, method: nn.Module, predictions: dict[str, Tensor], features: Tensor, view: Batch
    ) -> Tensor:
        targets = self.targets(view)
        count = len(view["image"])
        total = features.new_zeros((), dtype=torch.float32)
        for (source, target), chosen in pairs_of_batch(self._has(view)).items():
            label, valid = targets[target]
            pair = Pair(
                source,
                target,
                {task: predictions[task][chosen] for task in (source, target)},
                label[chosen],
                valid[chosen],
                features[chosen],
            )
            # The mean over images of the sum over an image's pairs.
            total = total + method(pair, self.losses) * (chosen.sum() / count)
        return total

    def _perturbation(
        self,
        second: dict[str, Tensor],
        first: dict[str, Tensor],
        windows: list[Any],
        batch: Batch,
    ) -> Tensor:
        total = batch["image"].new_zeros((), dtype=torch.float32)
        count = len(batch["image"])
        for task in self.network.tasks:
            without = ~batch[f"has_{TASK_FIELDS[task]}"]  # type: ignore[literal-required]
            if without.any():
                teacher = look_into(first[task].detach(), windows)[without]
                if task == "depth":
                    teacher = self._nearer(teacher, windows, batch, without)
                loss = perturbation_loss(task, second[task][without], teacher)
                total = total + loss * (without.sum() / count)
        return total

    def _nearer(self, depth: Tensor, windows: list[Any], batch: Batch, chosen: Tensor) -> Tensor:
        """The first view's depth as the second, closer view would have it."""
        if self.config.data.augmentation.scale_changes == "nothing":
            return depth
        size = batch["image"].shape[-2] * batch["image"].shape[-1]
        zooms = [(size / (window.height * window.width)) ** 0.5 for window in windows]
        zoom = torch.tensor(zooms, device=depth.device)
        if self.spec.camera is None:  # metres, whatever the camera, where it is known
            zoom = torch.where(batch["has_intrinsics"], 1.0, zoom)
        unit = self.network.unit
        return unit.encode(unit.decode(depth) / zoom[chosen][:, None, None, None])

    def optimizer_groups(self) -> list[dict[str, Any]]:
        groups = super().optimizer_groups()
        method: Any = self.pairs
        film = method.film_parameters() if hasattr(method, "film_parameters") else []
        if not film or self.settings.film_learning_rate is None:
            return groups
        inside = {id(parameter) for parameter in film}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in inside]
        return [*groups, {"params": film, "lr": self.settings.film_learning_rate}]
