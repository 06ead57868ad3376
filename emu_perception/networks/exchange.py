"""Blocks that exchange features between the decoders of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.attention import (
    ChannelCrossTaskAttention,
    SelfAttention,
    SpatialCrossTaskAttention,
    projection,
)

Fusion = Literal["concatenate", "add", "product"]
Attention = Literal["spatial", "channel", "both", "none"]
FUSIONS = ("concatenate", "add", "product")
ATTENTIONS = ("spatial", "channel", "both", "none")


class CrossTaskAttention(nn.Module):
    """xTAM, one direction: features of a source task for a target task (Fig. 3).

    Args:
        channels: of both.
        scale: of the downscaling inside.
        attention: the correlation-guided part: between places, channels, both, or none.
        self_attention: also the source's features gated by themselves, with half the channels.
        alpha: see `SpatialCrossTaskAttention`.
    """

    def __init__(
        self,
        channels: int,
        scale: int,
        attention: Attention = "spatial",
        self_attention: bool = True,
        alpha: bool = True,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}, got '{attention}'")
        spatial, channel = attention in ("spatial", "both"), attention in ("channel", "both")
        width = channels * (spatial + channel) + (channels // 2 if self_attention else 0)
        if not width:
            raise ValueError("cross-task attention without attention: use exchange 'none'")
        self.extract = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.self_attention = SelfAttention(channels, channels // 2) if self_attention else None
        self.spatial = SpatialCrossTaskAttention(channels, scale, alpha) if spatial else None
        self.channel = ChannelCrossTaskAttention(channels, alpha) if channel else None
        self.project = projection(width, channels)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Two `(B, C, h, w)` to one."""
        source = self.extract(source)
        parts = [] if self.self_attention is None else [self.self_attention(source)]
        parts += [part(target, source) for part in (self.spatial, self.channel) if part is not None]
        return self.project(torch.cat(parts, dim=1))


class ExchangeBlock(nn.Module):
    """mTEB: every task's features enriched by those of all the others (section 3.2).

    Args:
        tasks: at least two.
        channels: of each task's features.
        scale: of the downscaling inside.
        fusion: with the target's features: concatenated and projected, added, or multiplied.
        attention, self_attention, alpha: of `CrossTaskAttention`.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        channels: int,
        scale: int,
        fusion: Fusion = "add",
        attention: Attention = "spatial",
        self_attention: bool = True,
        alpha: bool = True,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {FUSIONS}, got '{fusion}'")
        self.fusion = fusion
        self.directions = nn.ModuleDict(
            {
                t: nn.ModuleDict(
                    {
                        s: CrossTaskAttention(channels, scale, attention, self_attention, alpha)
                        for s in tasks
                        if s != t
                    }
                )
                for t in tasks
            }
        )
        inputs = len(tasks) - (0 if fusion == "concatenate" else 1)
        self.fuse = nn.ModuleDict({t: projection(inputs * channels, channels) for t in tasks})

    def enrich(self, task: str, features: Mapping[str, Tensor]) -> Tensor:
        """One task's `(B, C, h, w)`, given those of all tasks."""
        own = features[task]
        sources = self.directions[task]
        assert isinstance(sources, nn.ModuleDict)
        heard = [attend(own, features[source]) for source, attend in sources.items()]
        if self.fusion == "concatenate":
            heard = [own, *heard]
        fused = self.fuse[task](torch.cat(heard, dim=1))
        if self.fusion == "concatenate":
            return fused
        return own + fused if self.fusion == "add" else own * fused

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """`(B, C, h, w)` by task to the same."""
        return {task: self.enrich(task, features) for task in features}


class Distillation(nn.Module):
    """PAD-Net's exchange: the others' features, gated by themselves, are added (Eq. 4 and 5)."""

    def __init__(self, tasks: Sequence[str], channels: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                t: nn.ModuleDict({s: SelfAttention(channels, channels) for s in tasks if s != t})
                for t in tasks
            }
        )

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """`(B, C, h, w)` by task to the same."""
        enriched = {}
        for task, sources in self.attention.items():
            assert isinstance(sources, nn.ModuleDict)
            enriched[task] = features[task]
            for source, attend in sources.items():
                enriched[task] = enriched[task] + attend(features[source])
        return enriched


class Isolated(nn.Module):
    """A control with the parameters of an `ExchangeBlock` and no exchange.

    Each direction's module runs on the target's own features in place of the source's, so that
    what is compared with the exchange differs in nothing but what is heard.
    """

    def __init__(self, block: ExchangeBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """`(B, C, h, w)` by task to the same."""
        return {
            task: self.block.enrich(task, dict.fromkeys(features, own))
            for task, own in features.items()
        }
