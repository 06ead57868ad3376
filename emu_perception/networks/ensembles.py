"""Networks with members: Deep Ensemble, Deep Sub-Ensemble and Monte Carlo Dropout.

Each gives raw outputs that lead with the member axis M, so that everything behind them is the same
for all methods (EMUFormer, arXiv 2402.10580, section 3.2). Several members have a variance of depth
even where each predicts a mean alone: that of their means.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.decoder import FoldedDecoders, MLPDecoder
from emu_perception.networks.encoder import build_encoder, feature_widths
from emu_perception.networks.raw_outputs import RawOutputs
from emu_perception.networks.segdepthformer import (
    FoldedSegDepthFormer,
    SegDepthFormer,
    build_decoders,
    check_tasks,
    default_width,
    depth_channels,
    input_channels,
    inverse_softplus,
)
from emu_perception.tasks import WITH_UNCERTAINTY


def stack_members(members: Sequence[RawOutputs]) -> RawOutputs:
    """Raw outputs `(B, C, h, w)` of each member to `(M, B, C, h, w)`."""
    return {task: torch.stack([member[task] for member in members]) for task in members[0]}


class DeepEnsemble(nn.Module):
    """Networks of one kind, each trained on its own (Lakshminarayanan et al., NIPS 2017).

    Args:
        members: of one architecture and the same tasks.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        _check_members(len(members))
        self.members: nn.ModuleList = nn.ModuleList(members)
        self.epistemic = len(members) > 1
        predicted = bool(getattr(members[0], "depth_variance", True))
        # Members that predict none still disagree.
        disagree = self.epistemic and "depth" in getattr(members[0], "tasks", ())
        self.depth_variance = predicted or disagree

    def forward(self, image: Tensor) -> RawOutputs:
        """`(B, 3, H, W)` to raw maps `(M, B, C, h, w)`, as large as the members'."""
        return stack_members([member(image) for member in self.members])

    def initialise_depth_mean(self, mean_depth: float) -> None:
        """See `SegDepthFormer.initialise_depth_mean`."""
        for member in self.members:
            member.initialise_depth_mean(mean_depth)  # type: ignore[operator]

    def fold(self) -> DeepEnsemble:
        """The same for inference, the decoders of members that can be folded being folded."""
        folded: list[nn.Module] = [
            member.fold() if hasattr(member, "fold") else member  # type: ignore[operator]
            for member in self.members
        ]
        return DeepEnsemble(folded).eval()


class BatchedEnsemble(nn.Module):
    """Folded members whose encoders run in one batched pass: as many launches as one member's.

    The encoders' weights are stacked as they are, on their device and in their precision: make it
    last. For GPUs, where launches are what an image costs.

    Args:
        ensemble: folded, its members being `SegDepthFormer`s.
    """

    def __init__(self, ensemble: DeepEnsemble) -> None:
        super().__init__()
        members = [m for m in ensemble.members if isinstance(m, FoldedSegDepthFormer)]
        encoders = [member.encoder for member in members]
        self.tasks = members[0].tasks
        self.decoders = nn.ModuleList(member.decoders for member in members)
        self._weights = torch.func.stack_module_state(encoders)
        for stacked in self._weights[0].values():
            stacked.requires_grad_(False)
        self.first = nn.Identity()
        """Passes on the feature maps of the first member, for hooks."""
        # Only its code is used. In a tuple: it is no submodule.
        self._encoder = (copy.deepcopy(encoders[0]).to("meta"),)
        self.eval()

    @staticmethod
    def serves(network: nn.Module) -> bool:
        """Whether a folded network can be run this way."""
        members = network.members if isinstance(network, DeepEnsemble) else ()
        # Sampled dropout would be the same in all members.
        return bool(members) and all(type(m) is FoldedSegDepthFormer for m in members)

    def forward(self, image: Tensor) -> RawOutputs:
        """Compute the same as `DeepEnsemble.forward`."""
        encode = torch.func.vmap(self._encode, in_dims=(0, 0, None))
        features = encode(*self._weights, image)
        self.first([scale[0] for scale in features])
        outputs = [
            dict(zip(self.tasks, decoders([scale[i] for scale in features]), strict=True))
            for i, decoders in enumerate(self.decoders)
        ]
        return stack_members(outputs)

    def _encode(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], image: Tensor
    ) -> list[Tensor]:
        found: list[Tensor] = torch.func.functional_call(
            self._encoder[0], (parameters, buffers), (image,)
        )
        return found


class DeepSubEnsemble(nn.Module):
    """One encoder with several sets of decoders (Valdenegro-Toro, arXiv 1910.08168).

    A training step runs and updates one of them, all run at inference.

    Args:
        members: sets of decoders.
        backbone, classes, tasks, width, dropout, drop_path, rays, depth_variance: as in
            `SegDepthFormer`.
    """

    def __init__(
        self,
        backbone: str = "mit_b2",
        classes: int | None = None,
        tasks: Sequence[str] = WITH_UNCERTAINTY,
        members: int = 10,
        width: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        rays: bool = False,
        depth_variance: bool = True,
    ) -> None:
        super().__init__()
        _check_members(members)
        self.tasks = check_tasks(tasks, classes)
        self.encoder = build_encoder(
            backbone,
            dropout=dropout if backbone.startswith("mit_") else 0.0,
            drop_path=drop_path,
            channels=input_channels(rays),
        )
        outputs = {"semantic": classes or 0, "depth": depth_channels(depth_variance)}
        channels = feature_widths(self.encoder)
        self.members: nn.ModuleList = nn.ModuleList(
            build_decoders(channels, outputs, self.tasks, width or default_width(backbone), dropout)
            for _ in range(members)
        )
        self.epistemic = members > 1
        self.depth_variance = depth_variance or self.epistemic

    def forward(self, image: Tensor, member: int | None = None) -> RawOutputs:
        """Normalised `(B, 3, H, W)` to raw maps at 1/4.

        Args:
            member: run this one's decoders only and give `(B, C, h, w)`; by default all of them,
                and `(M, B, C, h, w)`.
        """
        features = self.encoder(image)
        chosen = list(self.members) if member is None else [self.members[member]]
        found = []
        for decoders in chosen:
            assert isinstance(decoders, nn.ModuleDict)
            found.append({task: decoder(features) for task, decoder in decoders.items()})
        return stack_members(found) if member is None else found[0]

    @torch.no_grad()
    def initialise_depth_mean(self, mean_depth: float) -> None:
        """See `SegDepthFormer.initialise_depth_mean`."""
        for decoder in self.decoders_of("depth"):
            bias = decoder.predict.bias
            assert bias is not None
            bias[0] = mean_depth

    @torch.no_grad()
    def initialise_depth_deviation(self, deviation: float) -> None:
        """See `SegDepthFormer.initialise_depth_deviation`."""
        for decoder in self.decoders_of("depth"):
            bias = decoder.predict.bias
            assert bias is not None
            bias[1:2] = inverse_softplus(deviation**2)

    def decoders_of(self, task: str) -> list[MLPDecoder]:
        """A task's decoders, one per member."""
        found = [member.get_submodule(task) for member in self.members]
        return [decoder for decoder in found if isinstance(decoder, MLPDecoder)]

    def fold(self) -> FoldedSubEnsemble:
        """The same for inference; the decoders of all members and tasks fold into one."""
        return FoldedSubEnsemble(self)


class FoldedSubEnsemble(nn.Module):
    """A trained `DeepSubEnsemble` with folded decoders."""

    def __init__(self, network: DeepSubEnsemble) -> None:
        super().__init__()
        self.tasks = network.tasks
        self.encoder = network.encoder
        self.decoders = FoldedDecoders([d for t in self.tasks for d in network.decoders_of(t)])
        self.eval()

    def forward(self, image: Tensor) -> RawOutputs:
        """Compute the same as `DeepSubEnsemble.forward` with all members."""
        outputs = self.decoders(self.encoder(image))
        members = len(outputs) // len(self.tasks)
        return {
            task: torch.stack(outputs[i * members : (i + 1) * members])
            for i, task in enumerate(self.tasks)
        }


class MonteCarloDropout(SegDepthFormer):
    """A network whose dropout stays on at inference (Gal and Ghahramani, ICML 2016).

    In `eval()` only the dropout layers sample; batch-norm and stochastic depth do as in any
    inference. In `train()` it is the `SegDepthFormer` whose weights it takes.

    Args:
        samples: passes at inference, the members.
        dropout: rate in the decoders, MLPs and attention projections.
        backbone, classes, tasks, width, drop_path, rays, depth_variance: as in `SegDepthFormer`.
    """

    stochastic = True
    """Runtimes that remove dropout when they compile a network cannot run this one."""

    def __init__(
        self,
        backbone: str = "mit_b2",
        classes: int | None = None,
        tasks: Sequence[str] = WITH_UNCERTAINTY,
        samples: int = 10,
        width: int | None = None,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        rays: bool = False,
        depth_variance: bool = True,
    ) -> None:
        super().__init__(
            backbone,
            classes,
            tasks,
            width,
            dropout,
            drop_path,
            rays=rays,
            depth_variance=depth_variance,
        )
        _check_members(samples)
        self.samples = samples
        self.epistemic = samples > 1
        self.depth_variance = depth_variance or self.epistemic

    def train(self, mode: bool = True) -> MonteCarloDropout:
        """Set the mode; `eval()` keeps the dropout layers on."""
        super().train(mode)
        _turn_dropout_on(self)
        return self

    def forward(self, image: Tensor) -> RawOutputs:
        """`(B, 3, H, W)` to `(M, B, C, h, w)` in `eval()`, to `(B, C, h, w)` in `train()`."""
        if self.training:
            return super().forward(image)
        return _unstack(super().forward(_repeat(image, self.samples)), self.samples)

    def fold(self) -> FoldedMonteCarloDropout:
        """The same for inference; dropout comes after what folds."""
        return FoldedMonteCarloDropout(self)


class FoldedMonteCarloDropout(FoldedSegDepthFormer):
    """A trained `MonteCarloDropout` with folded decoders."""

    def __init__(self, network: MonteCarloDropout) -> None:
        super().__init__(network)
        self.samples = network.samples

    def train(self, mode: bool = True) -> FoldedMonteCarloDropout:
        """Set the mode; the dropout layers stay on."""
        super().train(mode)
        _turn_dropout_on(self)
        return self

    def forward(self, image: Tensor) -> RawOutputs:
        """Compute the same as `MonteCarloDropout.forward` in `eval()`."""
        return _unstack(super().forward(_repeat(image, self.samples)), self.samples)


def _check_members(count: int) -> None:
    if count < 1:
        raise ValueError(f"there must be at least one member or sample, got {count}")


def _turn_dropout_on(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.training = True


def _repeat(image: Tensor, count: int) -> Tensor:
    return image.repeat(count, 1, 1, 1)


def _unstack(raw: RawOutputs, members: int) -> RawOutputs:
    """`(M B, C, h, w)` to `(M, B, C, h, w)`."""
    return {task: maps.unflatten(0, (members, -1)) for task, maps in raw.items()}
