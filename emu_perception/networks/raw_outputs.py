"""Outputs of networks: raw maps by task, and additional ones for training."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from torch import Tensor

RawOutputs: TypeAlias = dict[str, Tensor]
"""Raw maps by task, in the order of `tasks.TASKS`, before any activation, at the decoder's
resolution: 1/4 of the input's for SegDepthFormer and its ensembles, 1/8 for ResNet with ASPP, the
full one for the others.

Each is `(B, C, h, w)` with the channels of `DenseTask`; networks with members lead with the member
axis: `(M, B, C, h, w)`.

- `semantic`: class scores before the softmax. With split uncertainty one channel more, the mutual
  information before its softplus.
- `depth`: mean before its ReLU, variance before its softplus. With split uncertainty one channel
  more, the epistemic variance before its softplus; the other is aleatoric. A network that predicts
  no variance has the mean alone.
- others: scores before the softmax; directions of any length.
"""


class DenseOutputs(NamedTuple):
    """Outputs of a multi-task network in training."""

    scales: tuple[dict[str, Tensor], ...]
    """Raw maps by task, `(B, channels, h, w)`: the prediction first, then those at coarser scales
    or earlier stages that deep supervision trains. Depth is in the network's own unit."""
    features: dict[str, Tensor]
    """The last features `(B, F, h, w)` of each task, before its prediction."""
    shared: Tensor | None = None
    """The encoder's last features `(B, E, h, w)`, which all tasks build on."""
