"""Outputs of networks: raw maps by task, and additional ones for training."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from emu_perception.tasks import TASKS


class RawOutputs(NamedTuple):
    """Outputs of a network before any activation, at its decoder's resolution.

    That is 1/4 of the input's for SegDepthFormer and its ensembles, 1/8 for ResNet with ASPP, and
    the full one for the others.

    Networks with members lead with the member axis: `(M, B, C, h, w)`. Those with split uncertainty
    have one more channel for each task, the last one.
    """

    logits: Tensor | None
    """`(B, C, h, w)`: class scores before the softmax. With split uncertainty `(B, C + 1, h, w)`:
    then the mutual information before its softplus."""
    depth: Tensor | None
    """`(B, 2, h, w)`: mean before its ReLU, variance before its softplus. With split uncertainty
    `(B, 3, h, w)`: then the epistemic variance before its softplus; the other is aleatoric. A
    network that predicts no variance gives `(B, 1, h, w)`."""
    normals: Tensor | None = None
    """`(B, 3, h, w)`: surface normals in the optical frame, of any length."""
    edges: Tensor | None = None
    """`(B, 2, h, w)`: scores of no edge and edge before the softmax."""
    human_parts: Tensor | None = None
    """`(B, 7, h, w)`: scores of `labels.HUMAN_PARTS` before the softmax."""
    saliency: Tensor | None = None
    """`(B, 2, h, w)`: scores of background and salient object before the softmax."""

    def by_task(self) -> dict[str, Tensor]:
        """The maps there are, by task."""
        maps = zip(TASKS, self, strict=True)
        return {task: raw for task, raw in maps if raw is not None}


class DenseOutputs(NamedTuple):
    """Outputs of a multi-task network in training."""

    scales: tuple[dict[str, Tensor], ...]
    """Raw maps by task, `(B, channels, h, w)`: the prediction first, then those at coarser scales
    or earlier stages that deep supervision trains. Depth is in the network's own unit."""
    features: dict[str, Tensor]
    """The last features `(B, F, h, w)` of each task, before its prediction."""
    shared: Tensor | None = None
    """The encoder's last features `(B, E, h, w)`, which all tasks build on."""
