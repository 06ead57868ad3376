"""The all-MLP decoder of SegFormer, and its exact folding for inference.

As published, each scale is projected to a common width, upsampled to 1/4 of the image,
concatenated, fused by a 1x1 convolution with batch-norm and ReLU, and classified (SegFormer, arXiv
2105.15203, section 3.2). Up to the batch-norm all of this is linear, and bilinear upsampling
commutes with a 1x1 convolution: its weights sum to one at every pixel, so biases pass through too.
A scale's projection and its slice of the fusion are therefore one small matrix, applied at the
scale's own resolution, in training too; a trained decoder folds the batch-norm into it as well.
What remains at 1/4 is a sum, a ReLU and the classifier.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class MLPDecoder(nn.Module):
    """Four feature maps to one raw output map at the resolution of the finest.

    Args:
        in_channels: widths of the feature maps, finest first.
        out_channels: classes, or two for the mean and variance of depth.
        width: the common width; 256 for B0 and B1, 768 for B2 to B5.
        dropout: rate before the last convolution (channels, as in SegFormer).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        width: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(c, width, 1) for c in in_channels)
        self.fuse = nn.Conv2d(width * len(in_channels), width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout)
        self.predict = nn.Conv2d(width, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """`[(B, C_i, h_i, w_i), …]`, finest first, to `(B, out_channels, h_0, w_0)`."""
        size = features[0].shape[-2:]
        total: Tensor | None = None
        for feature, (weight, bias) in zip(features, self._scales(), strict=True):
            part = F.conv2d(innermost_channels(feature), weight, bias)
            total = part if total is None else total + resize(part, size)
        assert total is not None
        return self.predict(self.dropout(torch.relu(self.norm(total))))

    def _scales(self) -> list[tuple[Tensor, Tensor]]:
        """Weight `(width, C_i, 1, 1)` and bias `(width,)` of each scale's projection and fusion as
        one convolution, the finest first."""
        width = self.fuse.out_channels
        # SegFormer concatenates from coarse to fine; its published weights rely on the order.
        slices = self.fuse.weight.flatten(1).split(width, dim=1)[::-1]
        found = []
        for part, project in zip(slices, self.projections, strict=True):
            assert isinstance(project, nn.Conv2d) and project.bias is not None
            weight = part @ project.weight.flatten(1)
            found.append((weight[..., None, None], part @ project.bias))
        return found


class FoldedDecoders(nn.Module):
    """Several `MLPDecoder`s on the same features, folded for inference into one.

    Equal to the decoders in `eval()` up to rounding, at a small part of their cost. The weights
    are constants: fold a trained network, never train a folded one.
    """

    def __init__(self, decoders: Sequence[MLPDecoder]) -> None:
        super().__init__()
        self.out_channels = [d.predict.out_channels for d in decoders]
        self.widths = [d.predict.in_channels for d in decoders]
        folded = [_fold(decoder) for decoder in decoders]
        stages = [torch.cat(s) for s in zip(*(weights for weights, _ in folded), strict=True)]
        bias = torch.cat([bias for _, bias in folded])
        self.scales = nn.ModuleList(
            _pointwise(weight, None if i else bias) for i, weight in enumerate(stages)
        )
        # Does nothing in eval(); Monte Carlo Dropout samples it.
        self.dropouts = nn.ModuleList(nn.Dropout2d(d.dropout.p) for d in decoders)
        self.predictions = nn.ModuleList()
        for decoder in decoders:
            predict = nn.Conv2d(decoder.predict.in_channels, decoder.predict.out_channels, 1)
            predict.load_state_dict(decoder.predict.state_dict())
            self.predictions.append(predict)
        self.requires_grad_(False).eval()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """`[(B, C_i, h_i, w_i), …]` to one `(B, out_channels, h_0, w_0)` per decoder."""
        size = features[0].shape[-2:]
        features = [innermost_channels(feature) for feature in features]
        total = self.scales[0](features[0])
        for scale, feature in zip(self.scales[1:], features[1:], strict=True):
            total += resize(scale(feature), size)
        parts = total.relu_().split(self.widths, dim=1)
        return [
            predict(dropout(part))
            for predict, dropout, part in zip(self.predictions, self.dropouts, parts, strict=True)
        ]


class SeparateDecoders(nn.Module):
    """`FoldedDecoders`, each on its own: as many sums, and none to be split afterwards.

    Runtimes that compile a graph fuse sum and ReLU into a convolution, and copy what is split.
    """

    def __init__(self, folded: FoldedDecoders) -> None:
        super().__init__()
        parts = zip(*(_split(scale, folded.widths) for scale in folded.scales), strict=True)
        self.decoders = nn.ModuleList(nn.ModuleList(scales) for scales in parts)
        self.predictions = folded.predictions
        self.requires_grad_(False).eval()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute the same as `FoldedDecoders.forward`."""
        size = features[0].shape[-2:]
        outputs = []
        for scales, predict in zip(self.decoders, self.predictions, strict=True):
            assert isinstance(scales, nn.ModuleList)
            coarse = [
                resize(scale(feature), size)
                for scale, feature in zip(scales[1:], features[1:], strict=True)
            ]
            # Summed before the finest is added: then that addition ends a convolution.
            total = scales[0](features[0]) + functools.reduce(torch.add, coarse)
            outputs.append(predict(torch.relu(total)))
        return outputs


def separate_decoders(network: nn.Module) -> nn.Module:
    """A folded network with separate decoders; shares everything else with it."""
    network = copy.copy(network)
    network._modules = {
        name: None
        if child is None
        else SeparateDecoders(child)
        if isinstance(child, FoldedDecoders)
        else separate_decoders(child)
        for name, child in network._modules.items()
    }
    return network


def _split(convolution: nn.Module, widths: Sequence[int]) -> list[nn.Conv2d]:
    """A 1x1 convolution for each part of the output channels."""
    assert isinstance(convolution, nn.Conv2d)
    weights = convolution.weight.detach()[..., 0, 0].split(list(widths))
    if convolution.bias is None:
        return [_pointwise(weight, None) for weight in weights]
    biases = convolution.bias.detach().split(list(widths))
    return [_pointwise(w, b) for w, b in zip(weights, biases, strict=True)]


def _fold(decoder: MLPDecoder) -> tuple[list[Tensor], Tensor]:
    """One `(width, C_i)` matrix per scale, and the `(width,)` bias of their sum, in double."""
    norm = decoder.norm
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a decoder without running batch-norm statistics cannot be folded")
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    fuse = decoder.fuse.weight.detach().double().flatten(1) * gain[:, None]
    slices = fuse.split(norm.num_features, dim=1)[::-1]
    bias = norm.bias.double() - norm.running_mean.double() * gain
    matrices = []
    for part, project in zip(slices, decoder.projections, strict=True):
        weight, offset = project.state_dict().values()
        matrices.append((part @ weight.double().flatten(1)).detach())
        bias = bias + part @ offset.double()
    return matrices, bias.detach()


def _pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    state = {"weight": weight[..., None, None]} | ({} if bias is None else {"bias": bias})
    convolution.load_state_dict(state)
    return convolution


_FEW_CHANNELS = 4
"""Beyond these, torch resamples ten times faster on a CPU with the channels innermost."""


def innermost_channels(x: Tensor) -> Tensor:
    """`(B, C, h, w)` in torch's channels-last layout."""
    return x.contiguous(memory_format=torch.channels_last)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resampling of `(B, C, h, w)` to `size` = (H, W), pixel edges in place."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.shape[1] > _FEW_CHANNELS:
        x = innermost_channels(x)
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
