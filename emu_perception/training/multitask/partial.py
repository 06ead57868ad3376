"""Training on partially annotated images: what a second view's predictions must agree with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.decoder import resize
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.networks.segdepthformer import input_channels
from emu_perception.tasks import TASKS
from emu_perception.training.config import TrainConfig
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.multitask.pairs import (
    METHODS,
    DirectMap,
    JointMapping,
    Pair,
    Perturbation,
    pairs_of_batch,
)
from emu_perception.training.multitask.task_losses import choose_losses
from emu_perception.training.multitask.views import (
    Window,
    closer_view,
    draw_windows,
    look_into,
    look_into_directions,
    zooms,
)
from emu_perception.training.targets import Outputs

RateFactor = Callable[[int], float]


class SecondView(NamedTuple):
    """A closer view of a batch, and what the network predicts of it."""

    windows: Sequence[Window]
    batch: Batch
    image: Tensor
    """Normalised."""
    seen: DenseOutputs | None = None
    """None: it has not passed through the network yet."""


class PartialLosses(nn.Module):
    """One of MTPSL's methods, named in `multitask.partial`, in addition to the labels' losses.

    The labels that an image has supervise the first view; the losses between tasks act on a second
    one, closer, as in Li et al., CVPR 2022.

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
            self.method = self._build(spec, network)
        except TypeError as error:
            raise ValueError(f"multitask.partial.arguments: {error}") from error
        if isinstance(self.method, DirectMap) and "depth" in network.tasks:
            start = torch.tensor(config.model.initial_depth, device="cpu")
            self.method.start_depth_at(float(network.unit.encode(start)))

    def _build(self, spec: ModelSpec, network: Any) -> nn.Module | None:
        name, arguments = self.settings.method, self.settings.arguments
        if name == "supervised":
            if arguments:
                raise TypeError(f"'supervised' has none, got {', '.join(arguments)}")
            return None
        if name == "perturbation":
            return Perturbation(**arguments)
        channels = network.channels
        if "depth" in channels:
            channels = channels | {"depth": 1}
        build: Any = METHODS[name]
        depth: dict[str, Any] = {}
        if issubclass(build, JointMapping) and "depth" in channels:
            depth = {"unit": network.unit, "nearest": spec.depth_range[0]}
        return build(channels, _shared_channels(spec, network), **arguments, **depth)

    def look(self, module: SupervisedModule, batch: Batch) -> SecondView:
        """Draw a closer view of a batch."""
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        flips = self.settings.flip_probability
        windows = draw_windows(len(batch["image"]), size, flip_probability=flips)
        view = closer_view(batch, windows, knows_camera=module.spec.camera is not None)
        image = module.normalization(view["image"], view["intrinsics"])
        return SecondView(windows, view, image)

    def forward(
        self,
        module: SupervisedModule,
        first: Mapping[str, Tensor],
        batch: Batch,
        view: SecondView | None = None,
    ) -> dict[str, Tensor]:
        """The weighted loss of a batch, by the method's name; empty for `supervised`.

        Args:
            module: that trains the network.
            first: the first view's predictions at the images' size, by task, before a softmax.
            batch: of the first view.
            view: the second one; None: it is drawn here, and passes through the network alone.
        """
        if self.method is None:
            return {}
        network: Any = module.network
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        view = self.look(module, batch) if view is None else view
        seen = view.seen
        if seen is None:
            with statistics_kept(network):
                seen = network.dense(view.image)
        assert seen is not None
        second = {task: resize(raw.float(), size) for task, raw in seen.scales[0].items()}
        if isinstance(self.method, Perturbation):
            loss = self._perturbation(module, first, second, view.windows, batch)
        else:
            assert seen.shared is not None
            loss = self._pairs(module, second, seen.shared, view.batch)
        return {self.settings.method: self.settings.weight * loss}

    def _has(self, view: Batch, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Which images have labels that are dense enough to be mapped, by task."""
        found = {}
        for task in tasks:
            field = TASKS[task].field
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
        assert self.method is not None
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
        assert self.method is not None
        total = batch["image"].new_zeros((), dtype=torch.float32)
        count = len(batch["image"])
        for task, student in second.items():
            without = ~batch[f"has_{TASKS[task].field}"]  # type: ignore[literal-required]
            if without.any():
                look = look_into_directions if TASKS[task].kind == "direction" else look_into
                teacher = look(first[task].detach(), windows, nearest=False)
                if task == "depth":
                    teacher = closer_depth(module.network, teacher, windows)
                loss = self.method(task, student[without], teacher[without])
                total = total + module.factor(task) * loss * (without.sum() / count)
        return total

    def _film(self) -> list[nn.Parameter]:
        """The parameters that the pair of tasks chooses, where they have a rate of their own."""
        if self.settings.film_learning_rate is None or not isinstance(self.method, JointMapping):
            return []
        return self.method.film_parameters()

    def with_own_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimiser's groups, and those of the method's own parameters after them.

        The paper trains the mapping network at the network's rate, 1e-4, and the parameters that
        the pair of tasks chooses at another one.
        """
        settings = self.settings
        own, film = list(self.parameters()), self._film()
        inside = {id(parameter) for parameter in own}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in inside]
        chosen = {id(parameter) for parameter in film}
        shared = [p for p in own if id(p) not in chosen]
        if shared:
            rate = settings.learning_rate or groups[0]["lr"]
            groups = [*groups, {"params": shared, "lr": rate}]
        if film:
            groups = [*groups, {"params": film, "lr": settings.film_learning_rate}]
        return groups

    def film_factors(self, factors: list[RateFactor]) -> list[RateFactor]:
        """The factors of the optimiser's groups, that of the last one as the settings have it."""
        steps = self.settings.film_halved_every
        if steps is None or not self._film():
            return factors
        return [*factors[:-1], lambda step: 0.5 ** (step // steps)]


def image_of(batch: Batch, one: slice) -> Batch:
    """Some images of a batch."""
    return {name: values[one] for name, values in batch.items()}  # type: ignore[index, return-value]


def mean_over_images(
    losses: Callable[[slice], dict[str, Tensor]], batch: Batch
) -> dict[str, Tensor]:
    """The mean over all images of a batch of each image's own losses, by name.

    Args:
        losses: of the image that a slice of length 1 chooses, 0 where it has no label.
        batch: of the images.
    """
    count = len(batch["image"])
    found = [losses(slice(index, index + 1)) for index in range(count)]
    return {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}


def _part(dense: DenseOutputs, images: slice) -> DenseOutputs:
    """The outputs of some images of a batch."""
    return DenseOutputs(
        tuple({task: raw[images] for task, raw in maps.items()} for maps in dense.scales),
        {task: maps[images] for task, maps in dense.features.items()},
        None if dense.shared is None else dense.shared[images],
    )


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch's statistics and keep their running statistics.

    Otherwise half of the running statistics, which inference uses, would come from closer views,
    which no camera takes, and absolute depth would be worse.
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
    """Depth targets for a network that sees enlarged windows of images.

    It takes them for nearer by the zoom: it knows no camera, or gives a canonical one's depth.

    Args:
        network: of `unit`.
        depth: `(B, C, H, W)`, its prediction for the windows before enlarging, at full size.
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
        return self.partial.with_own_groups(super().optimizer_groups())

    def rate_factors(self, steps: int) -> list[RateFactor]:
        return self.partial.film_factors(super().rate_factors(steps))


class PartialModule(_WithPartialLosses, MultiTaskModule):
    """Trains a `MultiTaskNetwork` with labels and with `PartialLosses`."""

    _view: SecondView | None = None
    """State of the step in progress, where both views pass through the network as one batch."""

    def dense(self, batch: Batch) -> DenseOutputs:
        if not self.partial.settings.joint_views:
            return super().dense(batch)
        view = self.partial.look(self, batch)
        both = self.network.dense(torch.cat([self.normalization(batch["image"]), view.image]))
        count = len(batch["image"])
        self._view = view._replace(seen=_part(both, slice(count, None)))
        return _part(both, slice(count))

    def task_losses(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        """Each task's losses of the single images, summed and divided by all images of the batch,
        labelled or not (Eq. 1); in validation the mean over the labelled pixels."""
        if not self.training:
            return super().task_losses(dense, batch)
        losses = super().task_losses
        return mean_over_images(lambda one: losses(_part(dense, one), image_of(batch, one)), batch)

    def extra_terms(self, dense: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        size = (batch["image"].shape[-2], batch["image"].shape[-1])
        first = {task: resize(raw.float(), size) for task, raw in dense.scales[0].items()}
        view, self._view = self._view, None
        return self.partial(self, first, batch, view)


class PartialSupervisedModule(_WithPartialLosses):
    """Trains a SegDepthFormer with its own losses and with `PartialLosses`."""

    def __init__(self, config: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
        super().__init__(config, spec, network)
        if self.partial.settings.joint_views:
            raise ValueError(
                f"multitask.partial.joint_views is not for the architecture '{spec.architecture}': "
                "set it to false, or take a network such as segnet or xtasc"
            )

    def label_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Compute the same as `PartialModule.task_losses`."""
        if not self.training:
            return super().label_terms(outputs, batch)
        losses = super().label_terms

        def terms(one: slice) -> dict[str, Tensor]:
            maps = outputs._asdict().items()
            mine: dict[str, Any] = {k: v[one] for k, v in maps if isinstance(v, Tensor)}
            return losses(outputs._replace(**mine), image_of(batch, one))

        return mean_over_images(terms, batch)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        assert outputs.logits is not None and outputs.mean is not None
        first = {"semantic": outputs.logits, "depth": outputs.mean[:, None]}
        return super().terms(outputs, batch) | self.partial(self, first, batch)
