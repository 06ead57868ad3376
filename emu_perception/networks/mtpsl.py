"""The conditional joint task-pair mapping of MTPSL.

Li, Liu, Bilen, "Learning Multiple Dense Prediction Tasks from Partially Annotated Data" (CVPR 2022,
arXiv 2111.14893), Sec. 3.3: one network maps predictions and labels of any task into a space that a
pair of tasks has in common. It is SegNet's encoder, whose features are scaled and shifted (FiLM,
Perez et al., AAAI 2018) by parameters that the pair chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from emu_perception.networks.segnet import DEPTHS, WIDTHS, convolution
from emu_perception.networks.task_transfer import initialise_xavier


class ConditionedConvolution(nn.Module):
    """3x3 convolution, batch-norm, FiLM by the pair of tasks, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, pairs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        # A linear layer of the one-hot pair, without bias, is a table with a row per pair.
        self.gamma = nn.Parameter(torch.ones(pairs, out_channels))
        self.beta = nn.Parameter(torch.zeros(pairs, out_channels))

    def forward(self, x: Tensor, pair: int, image_by_image: bool = False) -> Tensor:
        # Scaled and shifted by the norm itself: one pass, and no copy kept for the gradient.
        norm, gamma, beta = self.norm, self.gamma[pair], self.beta[pair]
        weight, bias = norm.weight * gamma, norm.bias * gamma + beta
        x = self.convolution(x)
        if image_by_image:
            x = F.instance_norm(x, weight=weight, bias=bias, eps=norm.eps)
        else:
            x = functional_call(norm, {"weight": weight, "bias": bias}, (x,))
        return F.relu(x, inplace=True)


class MappingNetwork(nn.Module):
    """Maps of any task to the space that a pair of tasks shares.

    Args:
        channels: of the tasks' maps, by task, two tasks at least.
        widths: channels of the five stages; the last is to match the features that the mapped
            maps are compared with.
    """

    def __init__(self, channels: Mapping[str, int], widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"a mapping is between tasks: two at least, got {list(channels)}")
        self.tasks = tuple(channels)
        self.pairs = {pair: i for i, pair in enumerate(permutations(self.tasks, 2))}
        """Row of the FiLM parameters of each (source, target)."""
        self.enter = nn.ModuleDict(
            {task: convolution(count, widths[0]) for task, count in channels.items()}
        )
        before = (widths[0], *widths)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ConditionedConvolution(before[i] if j == 0 else width, width, len(self.pairs))
                for j in range(DEPTHS[i])
            )
            for i, width in enumerate(widths)
        )
        initialise_xavier(self)

    def forward(self, x: Tensor, task: str, pair: tuple[str, str]) -> Tensor:
        """One task's map in the space of a pair.

        Args:
            x: `(B, channels, H, W)`, H and W multiples of 32, each value in [0, 1] or so.
            task: that the map is of, the pair's source or target.
            pair: source and target.

        Returns:
            `(B, widths[-1], H/32, W/32)`.
        """
        row = self.pairs[pair]
        x = self.enter[task](x)
        for convolutions in self.stages:
            for each in convolutions:  # type: ignore[attr-defined]
                x = each(x, row)
            x = F.max_pool2d(x, 2)
        return x

    def image_by_image(
        self, source: Tensor, target: Tensor, pair: tuple[str, str]
    ) -> tuple[Tensor, Tensor]:
        """Both maps of a pair as `forward` gives them for one image after the other, in training.

        The batch norm of a single image is its instance norm, so that all images of both tasks
        pass together.

        Args:
            source, target: `(b, channels, H, W)`, of the pair's source and target.
            pair: source and target.
        """
        row, parts = self.pairs[pair], []
        for x, task in ((source, pair[0]), (target, pair[1])):
            enter: Any = self.enter[task]
            convolution, norm, _ = enter
            x = F.instance_norm(convolution(x), weight=norm.weight, bias=norm.bias, eps=norm.eps)
            parts.append(F.relu(x, inplace=True))
        x = torch.cat(parts)
        for convolutions in self.stages:
            for each in convolutions:  # type: ignore[attr-defined]
                x = each(x, row, image_by_image=True)
            x = F.max_pool2d(x, 2)
        first, second = x.split([len(source), len(target)])
        return first, second

    def film_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that a pair of tasks chooses; the paper gives them an optimiser of their
        own."""
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2] in ("gamma", "beta"):
                yield parameter
