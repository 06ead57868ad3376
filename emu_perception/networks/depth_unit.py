"""Units of a depth channel: metres, their logarithm, or an inverse of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

FARTHEST = 1000.0
"""Metres; what a prediction without end decodes to."""


class DepthUnit(ABC):
    """A bijection between metres and what a network's depth channel holds."""

    name: ClassVar[str]

    @abstractmethod
    def encode(self, metres: Tensor) -> Tensor:
        """Positive metres to the network's unit."""

    @abstractmethod
    def decode(self, value: Tensor) -> Tensor:
        """The network's unit, any number, to metres; at most `FARTHEST`, except for metres."""


class Metres(DepthUnit):
    """Depth itself."""

    name = "metres"

    def encode(self, metres: Tensor) -> Tensor:
        return metres

    def decode(self, value: Tensor) -> Tensor:
        return value


class Logarithm(DepthUnit):
    """The natural logarithm of metres: what is twice as far is as much farther everywhere."""

    name = "logarithm"

    def encode(self, metres: Tensor) -> Tensor:
        return torch.log(metres.clamp_min(1e-3))

    def decode(self, value: Tensor) -> Tensor:
        return torch.exp(value.clamp(max=math.log(FARTHEST)))


class Inverse(DepthUnit):
    """1 / metres, what a stereo disparity is proportional to (XTasC-Net, arXiv 2111.14122)."""

    name = "inverse"

    def encode(self, metres: Tensor) -> Tensor:
        return 1 / metres.clamp_min(1e-3)

    def decode(self, value: Tensor) -> Tensor:
        return 1 / value.clamp_min(1 / FARTHEST)


class SigmoidInverse(DepthUnit):
    """The sigmoid of it is an inverse depth from 1 / 100 to 1 / 0.1 m (Monodepth2, arXiv
    1806.01260): bounded, and as steep wherever it is, for depth that no label teaches."""

    name = "sigmoid_inverse"
    _low, _high = 1 / 100, 1 / 0.1

    def encode(self, metres: Tensor) -> Tensor:
        share = (1 / metres - self._low) / (self._high - self._low)
        return torch.logit(share, eps=1e-6)

    def decode(self, value: Tensor) -> Tensor:
        return 1 / (self._low + (self._high - self._low) * torch.sigmoid(value))


class NormalizedInverse(DepthUnit):
    """65536 / (100 metres + 1): inverse depth scaled to 16 bits (DenseMTL, arXiv 2206.08927)."""

    name = "normalized_inverse"

    def encode(self, metres: Tensor) -> Tensor:
        return 65536 / (100 * metres + 1)

    def decode(self, value: Tensor) -> Tensor:
        return 655.36 / value.clamp_min(655.36 / FARTHEST) - 0.01


DEPTH_UNITS: dict[str, DepthUnit] = {
    unit.name: unit
    for unit in (Metres(), Logarithm(), Inverse(), SigmoidInverse(), NormalizedInverse())
}


def depth_unit(name: str) -> DepthUnit:
    """A unit by name; ValueError listing the known ones."""
    if name not in DEPTH_UNITS:
        raise ValueError(f"unknown depth unit '{name}'; known: {', '.join(DEPTH_UNITS)}")
    return DEPTH_UNITS[name]
