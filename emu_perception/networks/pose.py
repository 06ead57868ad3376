"""How a camera moved between two images: the network that self-supervised depth learns with."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.networks.encoder import build_features, feature_widths

_TURN = 0.01
_MOVE = 0.05


class PoseNetwork(nn.Module):
    """Two images to the motion between their cameras (Monodepth2, arXiv 1806.01260, supplement).

    Args:
        backbone: a timm model; its first convolution takes both images.
        typical_depth: metres. Without a label nothing tells the scale of a scene: motions are a
            fraction of this depth at first, so that both start in proportion.
    """

    def __init__(self, backbone: str = "resnet18", typical_depth: float = 15.0) -> None:
        super().__init__()
        self.encoder = build_features(backbone, in_chans=6)
        width = feature_widths(self.encoder)[-1]
        self.decoder = nn.Sequential(
            nn.Conv2d(width, 256, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 6, 1),
        )  # fmt: skip
        self.typical_depth = typical_depth

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two normalised `(B, 3, H, W)`, the earlier one first.

        Returns:
            `(B, 4, 4)`: from the optical frame of the first camera to that of the second, metres.
        """
        found = self.decoder(self.encoder(torch.cat([first, second], 1))[-1]).mean((2, 3)).float()
        return rigid_transform(_TURN * found[:, :3], _MOVE * self.typical_depth * found[:, 3:])


def rigid_transform(turn: Tensor, move: Tensor) -> Tensor:
    """Rotation vectors `(B, 3)` in radians and translations `(B, 3)` to matrices `(B, 4, 4)`."""
    x, y, z = turn.unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    upper = torch.cat([torch.linalg.matrix_exp(skew), move[..., None]], dim=2)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(upper), 1, 4)
    return torch.cat([upper, last], dim=1)
