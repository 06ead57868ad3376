"""XTasC-Net: a U-Net with a decoder per task, and networks that transfer between the tasks.

Nakano et al., "Cross-Task Consistency Learning Framework for Multi-Task Learning",
arXiv 2111.14122.
The transfer networks serve training only: they measure how well the predictions agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.encoder import build_features, feature_reductions, feature_widths
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.networks.segdepthformer import inverse_softplus
from emu_perception.networks.task_transfer import (
    WIDTHS,
    TaskTransferNetwork,
    initialise_xavier,
    start_channel,
    upsample_aligned,
)


class UNetDecoder(nn.Module):
    """From five feature maps to one map at the size of the image.

    Each block applies three 3x3 convolutions with batch-norm and ReLU, and then doubles the size,
    bilinear with aligned corners (section IV-A); from the second block on it also reads the
    encoder's features of its input's size.

    Args:
        in_channels: widths of the feature maps, finest (1/2) first.
        out_channels: of the map.
        width: of the blocks.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, width: int = 128) -> None:
        super().__init__()
        widths = [in_channels[-1], *(width + c for c in in_channels[-2::-1])]
        self.blocks = nn.ModuleList(_block(each, width) for each in widths)
        self.predict = nn.Conv2d(width, out_channels, 1, bias=False)
        initialise_xavier(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`[(B, C_i, H/2^(i+1), W/2^(i+1)), …]`, finest first, to the prediction `(B, out, H, W)`
        and the features `(B, width, H, W)` that it is made of."""
        x = features[-1]
        for index, block in enumerate(self.blocks):
            if index:
                x = torch.cat([x, features[-1 - index]], dim=1)
            x = upsample_aligned(block(x))
        return self.predict(x), x

    @torch.no_grad()
    def start_at(self, channel: int, value: float) -> None:
        """Start a channel of the prediction at a value: it has no bias, so the features that it is
        made of start at about 1, by the bias of their batch-norm."""
        last: nn.BatchNorm2d = self.blocks[-1][-2]  # type: ignore[index, assignment]
        last.bias.fill_(1.0)
        start_channel(self.predict, channel, value)


def _block(in_channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, width, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class XTasCNet(MultiTaskNetwork):
    """Encoder, a U-Net decoder per task, and a transfer network per ordered pair of tasks.

    Args:
        backbone: a timm model with feature maps at 1/2 … 1/32: resnet18, 34 and 50 in the paper.
        classes: number of classes; needed for the task "semantic".
        tasks: two in the paper; one alone has nothing to transfer.
        width: of the decoders' blocks.
        transfer_widths: channels of the transfer networks at 1/2, 1/4 and 1/8; () leaves them out.
        unit: of the depth channel; the paper's is inverse depth.
        depth_variance: see `MultiTaskNetwork`.

    Raises:
        ValueError: an unknown task or backbone, or classes missing.
    """

    def __init__(
        self,
        backbone: str = "resnet34",
        classes: int | None = None,
        tasks: Sequence[str] = ("semantic", "depth"),
        width: int = 128,
        transfer_widths: Sequence[int] = WIDTHS,
        unit: str = "inverse",
        depth_variance: bool = False,
    ) -> None:
        super().__init__(tasks, classes, unit, depth_variance)
        self.backbone = backbone
        self.encoder = build_unet_encoder(backbone)
        features = feature_widths(self.encoder)
        self.decoders = nn.ModuleDict(
            {task: UNetDecoder(features, self.channels[task], width) for task in self.tasks}
        )
        self.transfers = nn.ModuleDict()
        # The mean depth is what is transferred; its variance is no prediction of the scene.
        channels = self.channels | ({"depth": 1} if "depth" in self.tasks else {})
        for source, target in permutations(self.tasks, 2) if transfer_widths else ():
            self.transfers[f"{source}_to_{target}"] = TaskTransferNetwork(
                channels[source], channels[target], transfer_widths, scores=source == "semantic"
            )

    def dense(self, image: Tensor) -> DenseOutputs:
        """Normalised `(B, 3, H, W)`, H and W multiples of 32, to maps at full size."""
        features = self.encoder(image)
        found = {task: decoder(features) for task, decoder in self.decoders.items()}
        return DenseOutputs(
            scales=({task: prediction for task, (prediction, _) in found.items()},),
            features={task: last for task, (_, last) in found.items()},
            shared=features[-1],
        )

    def transfer(self, predictions: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        """Transferred predictions by (source, target), not activated."""
        return {
            (source, target): self.transfers[f"{source}_to_{target}"](
                predictions[source][:, :1] if source == "depth" else predictions[source]
            )
            for source, target in permutations(self.tasks, 2)
        }

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        if "depth" in self.tasks:
            yield self.decoders["depth"].predict  # type: ignore[misc]

    def initialise_depth_mean(self, mean_depth: float) -> None:
        """Start direct and transferred depth at a depth in metres."""
        value = float(self.unit.encode(torch.tensor(mean_depth)))
        self.decoders["depth"].start_at(0, value)  # type: ignore[operator]
        for name, transfer in self.transfers.items():
            if name.endswith("_to_depth"):
                transfer.start_at(value)  # type: ignore[operator]

    def initialise_depth_deviation(self, deviation: float) -> None:
        if self.depth_variance:
            value = inverse_softplus(deviation**2)
            self.decoders["depth"].start_at(1, value)  # type: ignore[operator]


def build_unet_encoder(backbone: str) -> nn.Module:
    """A timm backbone that gives five feature maps, from 1/2 to 1/32 of the image.

    Raises:
        ValueError: no such model, or one that does not give these five scales.
    """
    encoder = build_features(backbone)
    reductions = feature_reductions(encoder)
    if reductions != [2, 4, 8, 16, 32]:
        raise ValueError(
            f"'{backbone}' gives feature maps at 1/{reductions}; a U-Net needs 1/2, 1/4, 1/8, "
            "1/16 and 1/32, as ResNets give them"
        )
    return encoder
