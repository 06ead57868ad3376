"""PAD-Net: first predictions of all tasks, whose features are distilled into the final ones.

Xu et al., "PAD-Net: Multi-Tasks Guided Prediction-and-Distillation Network" (CVPR 2018,
arXiv 1805.04409). With the decoders of DenseMTL in place of its own it is `DenseMTL` with the
exchange `distillation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.attention import projection
from emu_perception.networks.decoder import resize
from emu_perception.networks.encoder import build_encoder, feature_widths
from emu_perception.networks.exchange import Distillation
from emu_perception.networks.lean_import import timm
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs


class PADNet(MultiTaskNetwork):
    """Encoder, first predictions at a quarter of the image's size, distillation, final ones.

    The encoder's scales are brought to 1/4 and concatenated. Each task has two residual blocks and
    a first prediction, which is trained like the final one. The blocks' features, gated by
    themselves, are added to those of the other tasks (module C of section 3.3), and two
    deconvolutions per task lead to the image's size (section 3.4).

    Args:
        backbone: a timm model with feature maps at 1/4 to 1/32.
        classes: number of classes; needed for the task "semantic".
        tasks: some of semantic, depth, normals, edges; with one there is nothing to distil.
        width: channels of the tasks' features; the deconvolutions halve it twice.
        unit, depth_variance: of `MultiTaskNetwork`.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        classes: int | None = None,
        tasks: Sequence[str] = ("semantic", "depth"),
        width: int = 256,
        unit: str = "normalized_inverse",
        depth_variance: bool = False,
    ) -> None:
        super().__init__(tasks, classes, unit, depth_variance)
        if width < 4 or width % 4:
            raise ValueError(f"width must be a multiple of 4, got {width}")
        self.encoder = build_encoder(backbone)
        widths = feature_widths(self.encoder)
        self.project = nn.ModuleList(projection(each, width) for each in widths)
        self.fuse = projection(len(widths) * width, width)
        block = timm.models.resnet.BasicBlock
        self.initial = nn.ModuleDict(
            {t: nn.Sequential(block(width, width), block(width, width)) for t in self.tasks}
        )
        self.initial_outputs = self._predictors(width)
        self.distillation = Distillation(self.tasks, width) if len(self.tasks) > 1 else None
        self.decoders = nn.ModuleDict(
            {
                task: nn.Sequential(
                    _deconvolution(width, width // 2), _deconvolution(width // 2, width // 4)
                )
                for task in self.tasks
            }
        )
        self.outputs = self._predictors(width // 4)

    def _predictors(self, width: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {task: nn.Conv2d(width, channels, 1) for task, channels in self.channels.items()}
        )

    def dense(self, image: Tensor) -> DenseOutputs:
        encoded = self.encoder(image)
        size = encoded[0].shape[-2:]
        scales = [resize(f(x), size) for f, x in zip(self.project, encoded, strict=True)]
        shared = self.fuse(torch.cat(scales, dim=1))
        x = {task: self.initial[task](shared) for task in self.tasks}
        first = {task: self.initial_outputs[task](x[task]) for task in self.tasks}
        if self.distillation is not None:
            x = self.distillation(x)
        x = {task: self.decoders[task](x[task]) for task in self.tasks}
        final = {task: self.outputs[task](x[task]) for task in self.tasks}
        return DenseOutputs((final, first), x, encoded[-1])

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        for predictors in (self.outputs, self.initial_outputs):
            output = predictors["depth"]
            assert isinstance(output, nn.Conv2d)
            yield output


def _deconvolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice the size: 4x4 transposed convolution, batch-norm, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
