"""DenseMTL: a decoder per task and blocks that exchange between them (arXiv 2206.08927).

The same network without its exchange is the plain multi-task baseline, with one task the
single-task one, with `distillation` the three-branch decoder with PAD-Net's exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch.nn as nn
from torch import Tensor

from emu_perception.networks.aspp import WIDTHS, ASPPDecoder
from emu_perception.networks.exchange import (
    Attention,
    Distillation,
    ExchangeBlock,
    Fusion,
    Isolated,
)
from emu_perception.networks.lean_import import timm
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs

DOWNSCALING = {4: 1, 3: 1, 2: 2, 1: 4, 0: 8}
"""By the scale of an exchange block, of the features inside it."""


class DenseMTL(MultiTaskNetwork):
    """Encoder, a decoder with ASPP per task, and exchange blocks between the decoders.

    Args:
        backbone: a timm model with feature maps at 1/2 or 1/4 to 1/32.
        classes: number of classes; needed for the task "semantic".
        tasks: some of semantic, depth, normals, edges; with one there is no exchange.
        exchange: `attention` (DenseMTL), `distillation` (PAD-Net's), `isolated` (a control with
            the parameters of `attention` that receives nothing from other tasks) or `none`.
        scales: of the exchange blocks (Table 3), 4 to 0; the authors' `distillation` is at 2.
        fusion, attention, self_attention, alpha: of `ExchangeBlock` (Table 4).
        dilated: the encoder's last stage is dilated in place of a stride, where timm has it.
        supervised: scales that predict all tasks and are trained.
        width: of the decoders and exchange blocks, as a fraction of the paper's.
        unit, depth_variance: of `MultiTaskNetwork`.
    """

    aligned_corners = True  # as in the authors' code

    def __init__(
        self,
        backbone: str = "resnet101",
        classes: int | None = None,
        tasks: Sequence[str] = ("semantic", "depth"),
        exchange: Literal["attention", "distillation", "isolated", "none"] = "attention",
        scales: Sequence[int] = (1,),
        fusion: Fusion = "add",
        attention: Attention = "spatial",
        self_attention: bool = True,
        alpha: bool = True,
        dilated: bool = True,
        supervised: Sequence[int] = (1, 0),
        width: float = 1.0,
        unit: str = "normalized_inverse",
        depth_variance: bool = False,
    ) -> None:
        super().__init__(tasks, classes, unit, depth_variance)
        if not set(scales) <= WIDTHS.keys() or not {0} <= set(supervised) <= WIDTHS.keys():
            raise ValueError("scales and supervised are among 4, 3, 2, 1, 0; supervised has 0")
        decoder_widths = {scale: round(width * channels) for scale, channels in WIDTHS.items()}
        if decoder_widths[0] < 2:
            raise ValueError(f"width must leave each decoder channels, got {width}")
        settings: dict[str, Any] = {"output_stride": 16} if dilated else {}
        self.encoder = timm.create_model(backbone, features_only=True, pretrained=False, **settings)
        info: Any = self.encoder.feature_info
        widths, reductions = list(info.channels()), list(info.reduction())
        # By scale, the last but the deepest feature map of that resolution.
        self.skips = {r.bit_length() - 1: i for i, r in enumerate(reductions[:-1])}
        self.decoders = nn.ModuleDict(
            {
                task: ASPPDecoder(
                    widths[-1],
                    {s: widths[i] for s, i in self.skips.items()},
                    channels,
                    sorted(set(supervised), reverse=True),
                    decoder_widths,
                )
                for task, channels in self.channels.items()
            }
        )
        self.exchanges = nn.ModuleDict()
        for scale in scales if len(self.tasks) > 1 and exchange != "none" else ():
            block: nn.Module
            if exchange == "distillation":
                block = Distillation(self.tasks, decoder_widths[scale])
            elif exchange in ("attention", "isolated"):
                block = ExchangeBlock(
                    self.tasks, decoder_widths[scale], DOWNSCALING[scale], fusion, attention,
                    self_attention, alpha,
                )  # fmt: skip
                block = Isolated(block) if exchange == "isolated" else block
            else:
                raise ValueError(
                    f"exchange must be attention, distillation, isolated or none, got '{exchange}'"
                )
            self.exchanges[str(scale)] = block

    def dense(self, image: Tensor) -> DenseOutputs:
        height, width = image.shape[-2:]
        encoded = self.encoder(image)
        x: dict[str, Tensor] = dict.fromkeys(self.tasks, encoded[-1])
        maps: list[dict[str, Tensor]] = []
        for scale in WIDTHS:
            skip = encoded[self.skips[scale]] if scale in self.skips else None
            size = (height >> scale, width >> scale)
            found: dict[str, Tensor] = {}
            for task in self.tasks:
                decoder = self._decoder(task)
                x[task] = decoder.step(scale, x[task], skip, size)
                # Intermediate predictions are made before the exchange, the final one after it.
                if str(scale) in decoder.outputs and scale:
                    found[task] = decoder.outputs[str(scale)](x[task])
            if str(scale) in self.exchanges:
                x = self.exchanges[str(scale)](x)
            if not scale:
                found = {t: self._decoder(t).outputs["0"](x[t]) for t in self.tasks}
            if found:
                maps.append(found)
        return DenseOutputs(tuple(maps[::-1]), x, encoded[-1])

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        for output in self._decoder("depth").outputs.values():
            assert isinstance(output, nn.Conv2d)
            yield output

    def _decoder(self, task: str) -> ASPPDecoder:
        decoder = self.decoders[task]
        assert isinstance(decoder, ASPPDecoder)
        return decoder
