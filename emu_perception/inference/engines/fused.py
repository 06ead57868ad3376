"""Semantic and depth maps on a GPU, straight from the raw outputs at a quarter of the size.

One kernel per task upsamples, activates and reduces a row's block of pixels in registers; no tensor
of class scores at full size is ever written. It equals `activation` up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
import triton
import triton.language as tl
from torch import Tensor

from emu_perception.inference.engines.activation import DepthActivation, SemanticActivation
from emu_perception.prediction import MIN_VARIANCE

TILE = 2048
"""Class scores that a program holds at a time."""
DEPTH_PIXELS = 256


@triton.jit
def _taps(position, size, target):  # type: ignore[no-untyped-def]
    """Two neighbours along one axis and the second one's share, pixel edges in place."""
    source = tl.maximum((position + 0.5) * size / target - 0.5, 0.0)
    first = tl.minimum(source.to(tl.int32), size - 1)
    return first, tl.minimum(first + 1, size - 1), source - first


@triton.jit
def _upsampled(  # type: ignore[no-untyped-def]
    raw, channel, x, y, mask, rows, columns, height, width, stride_c, stride_y, stride_x
):
    """Bilinear samples of channels at pixels of a row."""
    top, bottom, down = _taps(y, rows, height)
    left, right, across = _taps(x, columns, width)
    base = raw + channel * stride_c
    a = tl.load(base + top * stride_y + left * stride_x, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(base + top * stride_y + right * stride_x, mask=mask, other=0.0).to(tl.float32)
    c = tl.load(base + bottom * stride_y + left * stride_x, mask=mask, other=0.0).to(tl.float32)
    d = tl.load(base + bottom * stride_y + right * stride_x, mask=mask, other=0.0).to(tl.float32)
    upper = a + (b - a) * across
    lower = c + (d - c) * across
    return upper + (lower - upper) * down


@triton.jit
def _semantic_kernel(  # type: ignore[no-untyped-def]
    raw,
    labels,
    confidence,
    entropy,
    scale,
    rows,
    columns,
    height,
    width,
    stride_c,
    stride_y,
    stride_x,
    CLASSES: tl.constexpr,
    PADDED: tl.constexpr,
    PIXELS: tl.constexpr,
):
    y = tl.program_id(1)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, PADDED)[:, None]
    inside = x < width
    mask = (channel < CLASSES) & inside[None, :]
    found = _upsampled(
        raw, channel, x[None, :], y, mask, rows, columns, height, width,
        stride_c, stride_y, stride_x,
    )  # fmt: skip
    logits = tl.where(channel < CLASSES, found * scale, float("-inf"))
    largest = tl.max(logits, 0)
    # The first of equal ones, as torch has it.
    index = tl.min(tl.where(logits == largest[None, :], channel, PADDED), 0)
    q = tl.where(channel < CLASSES, logits - largest[None, :], 0.0)
    weights = tl.where(channel < CLASSES, tl.exp(q), 0.0)
    total = tl.sum(weights, 0)
    at = y * width + x
    tl.store(labels + at, index.to(tl.uint8), mask=inside)
    tl.store(confidence + at, 1.0 / total, mask=inside)
    tl.store(entropy + at, tl.log(total) - tl.sum(weights * q, 0) / total, mask=inside)


@triton.jit
def _depth_kernel(  # type: ignore[no-untyped-def]
    raw,
    mean,
    variance,
    scale,
    smallest,
    rows,
    columns,
    height,
    width,
    stride_c,
    stride_y,
    stride_x,
    PIXELS: tl.constexpr,
):
    y = tl.program_id(1)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = x < width
    at = y * width + x
    raw_mean = _upsampled(
        raw, 0, x, y, inside, rows, columns, height, width, stride_c, stride_y, stride_x
    )
    raw_variance = _upsampled(
        raw, 1, x, y, inside, rows, columns, height, width, stride_c, stride_y, stride_x
    )
    # ln(1 + e^x) without overflow.
    softplus = tl.maximum(raw_variance, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raw_variance)))
    tl.store(mean + at, tl.maximum(raw_mean, 0.0), mask=inside)
    tl.store(variance + at, tl.maximum(softplus, smallest) * scale, mask=inside)


class FusedSemanticActivation(nn.Module):
    """The maps of a `SemanticActivation` for one member.

    Args:
        general: what it must equal.
    """

    def __init__(self, general: SemanticActivation) -> None:
        super().__init__()
        self.wanted, self.size = general.wanted, general.size
        self.temperature, self.classes = general.temperature, general.classes

    @staticmethod
    def serves(general: SemanticActivation, raw: Tensor) -> bool:
        """Whether the maps can be computed from such raw outputs this way."""
        fits = triton.next_power_of_2(general.classes) <= TILE
        return _is_single(raw) and fits and set(general.wanted) <= {
            "classes", "confidence", "entropy",
        }  # fmt: skip

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, C, h, w)`, or `(1, 1, C, h, w)`, to `(H, W)` maps in the order of `wanted`."""
        raw = raw.flatten(0, -4)
        height, width = self.size
        maps: dict[str, Tensor] = {
            "classes": raw.new_empty((height, width), dtype=torch.uint8),
            "confidence": raw.new_empty((height, width), dtype=torch.float32),
            "entropy": raw.new_empty((height, width), dtype=torch.float32),
        }
        padded = triton.next_power_of_2(self.classes)
        pixels = max(1, TILE // padded)
        _kernel(_semantic_kernel, pixels, self.size)(
            raw, *maps.values(), 1 / self.temperature, *_geometry(raw, self.size),
            CLASSES=self.classes, PADDED=padded, PIXELS=pixels,
        )  # fmt: skip
        return tuple(maps[name] for name in self.wanted)


class FusedDepthActivation(nn.Module):
    """The maps of a `DepthActivation` for one member with a predicted variance.

    Args:
        general: what it must equal.
    """

    def __init__(self, general: DepthActivation) -> None:
        super().__init__()
        self.wanted, self.size = general.wanted, general.size
        self.variance_scale = general.variance_scale

    @staticmethod
    def serves(general: DepthActivation, raw: Tensor) -> bool:
        """Whether the maps can be computed from such raw outputs this way."""
        return _is_single(raw) and raw.shape[-3] == 2

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """`(1, 2, h, w)`, or `(1, 1, 2, h, w)`, to `(H, W)` maps in the order of `wanted`."""
        raw = raw.flatten(0, -4)
        maps = {
            name: raw.new_empty(self.size, dtype=torch.float32) for name in ("mean", "variance")
        }
        _kernel(_depth_kernel, DEPTH_PIXELS, self.size)(
            raw, *maps.values(), self.variance_scale, MIN_VARIANCE, *_geometry(raw, self.size),
            PIXELS=DEPTH_PIXELS,
        )  # fmt: skip
        return tuple(maps[name] for name in self.wanted)


def fused(activation: nn.Module, raw: Tensor) -> nn.Module:
    """The fused form of an activation for such raw outputs; the activation itself without one."""
    if isinstance(activation, SemanticActivation):
        serves = FusedSemanticActivation.serves(activation, raw)
        return FusedSemanticActivation(activation) if serves else activation
    if isinstance(activation, DepthActivation):
        serves = FusedDepthActivation.serves(activation, raw)
        return FusedDepthActivation(activation) if serves else activation
    return activation


def _is_single(raw: Tensor) -> bool:
    """One image, one member."""
    return all(size == 1 for size in raw.shape[:-3])


def _kernel(kernel: Any, pixels: int, size: tuple[int, ...]) -> Any:
    return kernel[(triton.cdiv(size[1], pixels), size[0])]


def _geometry(raw: Tensor, size: tuple[int, ...]) -> tuple[int, ...]:
    _, _, rows, columns = raw.shape
    _, stride_c, stride_y, stride_x = raw.stride()
    return rows, columns, size[0], size[1], stride_c, stride_y, stride_x
