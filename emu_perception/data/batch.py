"""From samples to a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from emu_perception.data.sample import (
    DataError,
    Sample,
)
from emu_perception.prediction import UNLABELLED
from emu_perception.tasks import TASKS, DenseTask


class _Always(TypedDict):
    image: torch.Tensor
    """`(B, 3, H, W)` uint8, RGB, not normalised."""
    intrinsics: torch.Tensor
    """`(B, 4)` float32: fx, fy, cx, cy in pixels of this image; NaN where the camera is unknown."""
    has_intrinsics: torch.Tensor
    """`(B,)` bool."""
    target: torch.Tensor
    """`(B,)` bool: of the domain to adapt to."""
    seed: torch.Tensor
    """`(B,)` int64: seeds of draws that are still to be made, such as `ColourJitter.draw`."""
    name: list[str]
    clip: list[str]


class Batch(_Always, total=False):
    """Tensors of a batch; of the tasks, those that were given to `collate`.

    A sample without labels of a task has `has_…` False and is all ignored: unlabelled, depth 0.
    """

    labels: torch.Tensor
    """`(B, H, W)` int64 class ids, 255 = unlabelled."""
    labels_valid: torch.Tensor
    """`(B, H, W)` bool."""
    has_labels: torch.Tensor
    """`(B,)` bool."""
    depth: torch.Tensor
    """`(B, H, W)` float32 metres, 0 = none."""
    depth_valid: torch.Tensor
    has_depth: torch.Tensor
    normals: torch.Tensor
    """`(B, 3, H, W)` float32 unit vectors, 0 = none."""
    normals_valid: torch.Tensor
    has_normals: torch.Tensor
    edges: torch.Tensor
    """`(B, H, W)` int64: 0, 1, 255 = unknown."""
    edges_valid: torch.Tensor
    has_edges: torch.Tensor
    human_parts: torch.Tensor
    """`(B, H, W)` int64 index in `labels.HUMAN_PARTS`, 255 = unknown."""
    human_parts_valid: torch.Tensor
    has_human_parts: torch.Tensor
    saliency: torch.Tensor
    """`(B, H, W)` int64: 0, 1, 255 = unknown."""
    saliency_valid: torch.Tensor
    has_saliency: torch.Tensor
    neighbours: torch.Tensor
    """`(B, 2, 3, H, W)` uint8: the images before and after; with `has_neighbours` only where
    samples have them."""
    has_neighbours: torch.Tensor
    motions: torch.Tensor
    """`(B, 2, 4, 4)` float32 as in `Sample`, NaN where not known; only where samples have them."""
    odd: torch.Tensor
    """`(B, H, W)` uint8 as in `Sample`, only where the samples have it."""


def _empty(task: DenseTask, height: int, width: int) -> np.ndarray:
    """The map of a sample that has no labels of a task."""
    return np.full(task.label_shape(height, width), task.unknown, task.label_type)


def collate(samples: Sequence[Sample], tasks: Sequence[str]) -> Batch:
    """Stack samples of one size.

    Args:
        samples: at least one.
        tasks: the tasks whose tensors the batch holds, whether or not a sample has their labels.

    Raises:
        DataError: the samples differ in size; the message names them.
    """
    sizes = {sample.size for sample in samples}
    if len(sizes) > 1:
        listed = ", ".join(f"'{s.name}' {s.size[1]} x {s.size[0]}" for s in samples)
        raise DataError(f"images of a batch must be of one size, got {listed}; crop or resize them")
    height, width = samples[0].size
    cameras = [
        (c.fx, c.fy, c.cx, c.cy) if (c := sample.intrinsics) is not None else (np.nan,) * 4
        for sample in samples
    ]
    intrinsics = torch.tensor(cameras, dtype=torch.float32)
    batch: dict[str, object] = {
        "image": _channels_first([sample.image for sample in samples]),
        "intrinsics": intrinsics,
        "has_intrinsics": ~intrinsics.isnan().any(dim=1),
        "target": torch.tensor([sample.target for sample in samples]),
        "seed": torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
        "name": [sample.name for sample in samples],
        "clip": [sample.clip for sample in samples],
    }
    for task in map(TASKS.__getitem__, tasks):
        field = task.field
        maps = [sample.get(field) for sample in samples]
        batch[f"has_{field}"] = torch.tensor([m is not None for m in maps])
        filled = [_empty(task, height, width) if m is None else m for m in maps]
        if task.kind == "direction":
            values = _channels_first(filled)
            valid = (values != 0).any(dim=1)
        else:
            values = torch.from_numpy(np.stack(filled))
            valid = values != UNLABELLED if task.scores else values > 0
            values = values.long() if task.scores else values
        batch[field] = values
        batch[f"{field}_valid"] = valid
    odd = [sample.odd for sample in samples]
    if any(mask is not None for mask in odd):
        nothing = np.full((height, width), UNLABELLED, np.uint8)
        masks = [nothing if mask is None else mask for mask in odd]
        batch["odd"] = torch.from_numpy(np.stack(masks))
    pairs = [sample.neighbours for sample in samples]
    if any(pair is not None for pair in pairs):
        none = np.zeros((height, width, 3), np.uint8)
        images = [_channels_first(pair or (none, none)) for pair in pairs]
        batch["neighbours"] = torch.stack(images)
        batch["has_neighbours"] = torch.tensor([pair is not None for pair in pairs])
    motions = [sample.motions for sample in samples]
    if any(motion is not None for motion in motions):
        unknown = np.full((2, 4, 4), np.nan)
        known = np.stack([unknown if motion is None else motion for motion in motions])
        batch["motions"] = torch.from_numpy(known.astype(np.float32))
    return batch  # type: ignore[return-value]


def _channels_first(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2)))
