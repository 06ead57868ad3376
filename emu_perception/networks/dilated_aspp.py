"""A dilated ResNet with a DeepLab head per task: MTPSL's network on PASCAL-Context.

Li, Liu, Bilen, CVPR 2022 (arXiv 2111.14893), Sec. 4, after Vandenhende et al., "Multi-Task Learning
for Dense Prediction Tasks: A Survey" (TPAMI 2021): ResNet-18 at an output stride of 8, and atrous
spatial pyramid pooling (Chen et al., arXiv 1706.05587) for each task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn as nn
from torch import Tensor
from torchvision.models.segmentation.deeplabv3 import ASPP

from emu_perception.networks.encoder import build_features, feature_widths
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.raw_outputs import DenseOutputs

RATES = (12, 24, 36)
"""Rates of the dilated convolutions."""
WIDTH = 256
"""Width of the pyramid."""


class DilatedASPP(MultiTaskNetwork):
    """A timm encoder at an output stride of 8, and a DeepLab head per task.

    Args:
        backbone: a timm model that takes an output stride, such as resnet18.
        classes: number of classes; needed for the task "semantic".
        tasks: some of `tasks.TASKS`.
        width: of the pyramid.
        rates: of its dilated convolutions.
        unit: of the depth channel.
        depth_variance: see `MultiTaskNetwork`.

    Raises:
        ValueError: an unknown task, or a backbone that cannot be dilated.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        classes: int | None = None,
        tasks: Sequence[str] = ("semantic", "depth"),
        width: int = WIDTH,
        rates: Sequence[int] = RATES,
        unit: str = "metres",
        depth_variance: bool = False,
    ) -> None:
        super().__init__(tasks, classes, unit, depth_variance)
        self.backbone = backbone
        self.encoder = build_features(backbone, output_stride=8)
        deepest = feature_widths(self.encoder)[-1]
        self.pyramids = nn.ModuleDict(
            {
                task: nn.Sequential(
                    ASPP(deepest, list(rates), width),
                    nn.Conv2d(width, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                )
                for task in self.tasks
            }
        )
        self.heads = nn.ModuleDict(
            {task: nn.Conv2d(width, self.channels[task], 1) for task in self.tasks}
        )

    def dense(self, image: Tensor) -> DenseOutputs:
        """Normalised `(B, 3, H, W)`, H and W multiples of 32, to maps at 1/8."""
        shared = self.encoder(image)[-1]
        features = {task: pyramid(shared) for task, pyramid in self.pyramids.items()}
        predictions = {task: self.heads[task](features[task]) for task in self.tasks}
        return DenseOutputs(scales=(predictions,), features=features, shared=shared)

    def depth_outputs(self) -> Iterator[nn.Conv2d]:
        if "depth" in self.tasks:
            yield self.heads["depth"]  # type: ignore[misc]
