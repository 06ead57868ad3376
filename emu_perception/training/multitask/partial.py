"""Training on partially annotated images: what a second view's predictions must agree with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.model_file import ModelSpec
from emu_perception.networks.decoder import resize
from emu_perception.networks.outputs import DenseOutputs
from emu_perception.networks.segdepthformer import input_channels
from emu_perception.training.config import TrainConfig
from emu_perception.training.data import Batch
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.multitask.losses import choose_losses
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.multitask.pairs import (
    METHODS,
    DirectMap,
    Pair,
    Perturbation,
    pairs_of_batch,
)
from emu_perception.training.multitask.views import (
    Window,
    closer_view,
    draw_windows,
    look_into,
    zooms,
)
from emu_perception.training.sample import TASK_FIELDS
from emu_perception.training.targets import Outputs

RateFactor = Callable[[int], float]


class PartialLosses(nn.Module):
    """One of MTPSL's methods, named in `multitask.partial`, beside the supervision by labels.

    The labels that an image has supervise the first view; the losses between tasks act on a second
    one, closer, as in Li et al., CVPR 2022. Single-task and supervised rows need no method.

    Args:
        config, spec: of the run.
        network: with several tasks, `channels` and `dense`.

    Raises:
        ValueError: the network, or the method's arguments, do not suit.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: Any) -> None:
        super().__init__()
        settings = config.multitask.partial
        assert settings is not None
        self.settings = settings
        if len(network.tasks) < 2:
            raise ValueError("multitask.partial is about several tasks: model.tasks has one")
        self.losses = choose_losses(config.multitask.losses, network.tasks)
        try:
            if settings.method == "perturbation":
                self.method: nn.Module = Perturbation(**settings.arguments)
            else:
                channels = network.channels
                if "depth" in channels:
                    channels = channels | {"depth": 1}
                build: Any = METHODS[settings.method]
                features = _shared_channels(spec, network)
                self.method = build(channels, features, **settings.arguments)
        except TypeError as error:
            raise ValueError(f"multitask.partial.arguments: {error}") from error
        if isinstance(self.method, DirectMap) and "depth" in network.tasks:
            start = torch.tensor(config.model.initial_depth, device="cpu")
            self.method.start_depth_at(float(network.unit.encode(start)))

    def forward(
        self, module: SupervisedModule, first: Mapping[str, Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """The weighted loss of a batch, by the method's name.

        Args:
            module: that trains the network.
            first: the first view's predictions at the images' size, by task, before a softmax.
            batch: of the first view.
        """
        network: Any = module.network
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        windows = draw_windows(len(batch["image"]), size)
        view = closer_view(batch, windows, knows_camera=module.spec.camera is not None)
        image = module.normalization(view["image"], view["intrinsics"])
        with statistics_kept(network):
            seen: DenseOutputs = network.dense(image)
        second = {task: resize(raw.float(), size) for task, raw in seen.scales[0].items()}
        if isinstance(self.method, Perturbation):
            loss = self._perturbation(module, first, second, windows, batch)
        else:
            assert seen.shared is not None
            loss = self._pairs(module, second, seen.shared, view)
        return {self.settings.method: self.settings.weight * loss}

    def _has(self, view: Batch, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Which images have labels that are dense enough to be mapped, by task."""
        found = {}
        for task in tasks:
            field = TASK_FIELDS[task]
            share = view[f"{field}_valid"].float().mean(dim=(1, 2))  # type: ignore[literal-required]
            found[task] = view[f"has_{field}"] & (share >= self.settings.dense_share)  # type: ignore[literal-required]
        return found

    def _pairs(
        self,
        module: SupervisedModule,
        predictions: dict[str, Tensor],
        features: Tensor,
        view: Batch,
    ) -> Tensor:
        targets = module.targets(view)
        count = len(view["image"])
        total = features.new_zeros((), dtype=torch.float32)
        for (source, target), chosen in pairs_of_batch(self._has(view, list(predictions))).items():
            label, valid = targets[target]
            pair = Pair(
                source,
                target,
                {task: predictions[task][chosen] for task in (source, target)},
                label[chosen],
                valid[chosen],
                features[chosen],
            )
            loss = self.method(pair, self.losses, module.factor)
            # The mean over images of the sum over an image's pairs.
            total = total + loss * (chosen.sum() / count)
        return total

    def _perturbation(
        self,
        module: SupervisedModule,
        first: Mapping[str, Tensor],
        second: dict[str, Tensor],
        windows: Sequence[Window],
        batch: Batch,
    ) -> Tensor:
        total = batch["image"].new_zeros((), dtype=torch.float32)
        count = len(batch["image"])
        for task, student in second.items():
            without = ~batch[f"has_{TASK_FIELDS[task]}"]  # type: ignore[literal-required]
            if without.any():
                teacher = look_into(first[task].detach(), windows)
                if task == "depth":
                    teacher = closer_depth(module.network, teacher, windows)
                loss = self.method(task, student[without], teacher[without])
                total = total + module.factor(task) * loss * (without.sum() / count)
        return total

    def with_film_group(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimiser's groups, the parameters that the pair of tasks chooses in one of their
        own where they have a learning rate of their own."""
        settings, method = self.settings, self.method
        film = list(method.film_parameters()) if hasattr(method, "film_parameters") else []  # type: ignore[operator]
        if not film or settings.film_learning_rate is None:
            return groups
        inside = {id(parameter) for parameter in film}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in inside]
        return [*groups, {"params": film, "lr": settings.film_learning_rate}]

    def film_factors(self, factors: list[RateFactor]) -> list[RateFactor]:
        """The factors of the optimiser's groups, that of the last one as the settings have it."""
        steps = self.settings.film_halved_every
        if len(factors) == 2 or steps is None:
            return factors
        return [*factors[:-1], lambda step: 0.5 ** (step // steps)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms see a batch as ever, but their running statistics stay as they are.

    Otherwise those that a network is used with are half those of closer views, which no camera
    takes: absolute depth suffers.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def closer_depth(network: Any, depth: Tensor, windows: Sequence[Window]) -> Tensor:
    """What a network that sees windows of images enlarged should say of their depth.

    It takes them for nearer by the zoom: it knows no camera, or gives a canonical one's depth.

    Args:
        network: of `unit`.
        depth: `(B, C, H, W)`, what it says of the windows before they are enlarged, at full size.
        windows: one per image.
    """
    zoom = zooms(windows, (depth.shape[-2], depth.shape[-1])).to(depth.device)
    nearer = zoom.prod(1).sqrt()[:, None, None, None]
    return network.unit.encode(network.unit.decode(depth[:, :1]) / nearer)


@torch.no_grad()
def _shared_channels(spec: ModelSpec, network: Any) -> int:
    """Channels of the features that all tasks share."""
    training = network.training
    shared = network.eval().dense(torch.zeros(1, input_channels(spec.rays), 64, 64)).shared
    network.train(training)
    if shared is None:
        raise ValueError(
            f"'{spec.architecture}' has no shared features, which multitask.partial needs"
        )
    return shared.shape[1]


class _WithPartialLosses(SupervisedModule):
    """A module whose optimiser learns what `PartialLosses` has to learn, too."""

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        self.partial = PartialLosses(config, spec, network)
        self.leaves_parameters_unused = bool(list(self.partial.parameters()))  # of absent pairs

    def optimizer_groups(self) -> list[dict[str, Any]]:
        return self.partial.with_film_group(super().optimizer_groups())

    def rate_factors(self, steps: int) -> list[RateFactor]:
        return self.partial.film_factors(super().rate_factors(steps))


class PartialModule(_WithPartialLosses, MultiTaskModule):
    """Trains a `MultiTaskNetwork` with labels and with `PartialLosses`."""

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        first = {task: resize(raw.float(), size) for task, raw in dense.scales[0].items()}
        return self.partial(self, first, batch)


class PartialSupervisedModule(_WithPartialLosses):
    """Trains a SegDepthFormer with its own losses and with `PartialLosses`."""

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        assert outputs.logits is not None and outputs.mean is not None
        first = {"semantic": outputs.logits, "depth": outputs.mean[:, None]}
        return super().terms(outputs, batch) | self.partial(self, first, batch)
