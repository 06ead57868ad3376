"""Base of networks for any set of dense tasks: tasks, channels and outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.decoder import resize
from emu_perception.networks.depth_unit import depth_unit
from emu_perception.networks.raw_outputs import DenseOutputs, RawOutputs
from emu_perception.networks.segdepthformer import inverse_softplus
from emu_perception.tasks import TASKS


class MultiTaskNetwork(nn.Module, ABC):
    """A network with an encoder and outputs for any of `TASKS`.

    Args:
        tasks: some of `tasks.TASKS`.
        classes: number of classes; needed for the task "semantic".
        unit: of the depth channel, one of `networks.depth_unit.DEPTH_UNITS`.
        depth_variance: the depth output has a second channel, the predictive variance in square
            metres before its softplus, so that the network can serve as EMUFormer's student or
            teacher.

    Attributes:
        encoder: whose parameters the optimiser gives the encoder's learning rate.
    """

    encoder: nn.Module
    aligned_corners: ClassVar[bool] = False
    """How training brings maps to the size of the image: bilinear with the corner pixels' centres
    in place, or (False) with the pixels' edges in place."""

    def __init__(
        self, tasks: Sequence[str], classes: int | None, unit: str, depth_variance: bool
    ) -> None:
        super().__init__()
        unknown = set(tasks) - set(TASKS)
        if unknown or not tasks:
            raise ValueError(f"tasks must be some of {tuple(TASKS)}, got {tuple(tasks)}")
        if "semantic" in tasks and (classes is None or classes < 1):
            raise ValueError("the task 'semantic' needs the number of classes")
        if depth_variance and "depth" not in tasks:
            raise ValueError("depth_variance needs the task 'depth'")
        self.tasks = tuple(task for task in TASKS if task in tasks)
        self.unit = depth_unit(unit)
        self.depth_variance = depth_variance
        self.channels = {task: TASKS[task].channel_count(classes) for task in self.tasks}
        """Output channels by task."""
        if depth_variance:
            self.channels["depth"] += 1

    @abstractmethod
    def dense(self, image: Tensor) -> DenseOutputs:
        """Normalised `(B, 3, H, W)`, H and W multiples of 32, to everything that training uses."""

    @abstractmethod
    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        """The convolutions that predict depth, in its first channel."""

    def full_size(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Raw maps `(B, C, h, w)` to `size` = (H, W), as training resamples them."""
        if not self.aligned_corners or tuple(maps.shape[-2:]) == tuple(size):
            return resize(maps, size)
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)

    def forward(self, image: Tensor) -> RawOutputs:
        """Normalised `(B, 3, H, W)` to raw maps, the mean depth in metres."""
        return self.raw_outputs(self.dense(image).scales[0])

    def raw_outputs(self, maps: dict[str, Tensor]) -> RawOutputs:
        """Maps of `dense` as every network gives them."""
        found = {task: maps[task] for task in self.tasks if task in maps}
        if "depth" in found:
            depth = found["depth"].float()
            found["depth"] = torch.cat([self.unit.decode(depth[:, :1]), depth[:, 1:]], 1)
        return found

    @torch.no_grad()
    def initialise_depth_mean(self, mean_depth: float) -> None:
        """Start the depth channels at a depth in metres."""
        value = float(self.unit.encode(torch.tensor(mean_depth)))
        for output in self.depth_outputs():
            if output.bias is not None:
                output.bias[0] = value

    @torch.no_grad()
    def initialise_depth_deviation(self, deviation: float) -> None:
        """See `SegDepthFormer.initialise_depth_deviation`; nothing without a variance."""
        for output in self.depth_outputs():
            if output.bias is not None and output.out_channels > 1:
                output.bias[1] = inverse_softplus(deviation**2)
