"""Deployment files: one ONNX graph from image and camera to the maps of `Prediction`.

Inputs: `image`, uint8 RGB `(H, W, 3)`; `camera`, float32 `(4,)` fx, fy, cx, cy in pixels of the
image, zeros for an unknown camera; `output_size`, int64 `(2,)` height and width of the maps, zeros
for the image's. Outputs: maps by the names of `Prediction`'s fields, in their units, and
`features`, float32 `(1, E)`, the encoder's coarsest feature map averaged over the image.

The engines here run the part between `PIXELS` and the raw outputs, whose values have fixed names in
the graph, and compute the rest by `resampling` and `postprocessing`, which take a fraction of the
time. Nothing here needs the package onnx.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from emu_perception.tasks import TASKS

if TYPE_CHECKING:
    from emu_perception.inference.model_spec import ModelSpec, Traits

PIXELS = "network_pixels"
"""`(1, 3, h, w)` float32, 0–255: the image at the network's size."""
CAMERA = "network_camera"
"""`(1, 4)` float32 fx, fy, cx, cy in pixels of that size; only of networks that take rays."""
RAW = "raw_"
"""Before a task's name: its raw outputs, as `networks.raw_outputs.RawOutputs` describes them."""
FEATURES = "features"
SUFFIX = ".onnx"
MAX_FEATURES = 65_536
"""Length of `features`."""


def network_outputs(tasks: Iterable[str]) -> dict[str, str]:
    """Names of the values at the network's end, by task; `features` may be missing in a file."""
    return {**{task: f"{RAW}{task}" for task in tasks}, FEATURES: FEATURES}


def check_outputs(
    shapes: Mapping[str, Sequence[int]], spec: ModelSpec, traits: Traits, size: tuple[int, int]
) -> None:
    """Refuse raw outputs that do not fit the description: they would give wrong maps or take the
    memory.

    Args:
        shapes: of the raw outputs by task, and of `features`.
        spec: the description.
        traits: of the network.
        size: height and width of the network's input.

    Raises:
        ValueError: channels, size or rank differ from those of `networks.raw_outputs.RawOutputs`.
    """
    members = spec.arguments.get("members", 1)
    classes = len(spec.label_set) if spec.label_set is not None else None
    for name, found in shapes.items():
        shape = tuple(found)
        if name == FEATURES:
            fits = len(shape) == 2 and shape[0] == 1 and shape[1] <= MAX_FEATURES
            expected = f"(1, up to {MAX_FEATURES})"
        else:
            channels = TASKS[name].channel_count(classes)
            # Of an ensemble the members' disagreement is a variance, too.
            channels += int(name == "depth" and traits.depth_variance and members == 1)
            most = channels + int(traits.epistemic)
            expected = f"(1, {channels}, up to {size[0]}, up to {size[1]})"
            fits = (
                len(shape) in (4, 5)
                and math.prod(shape[:-3]) in (1, members)
                and channels <= shape[-3] <= most
                and 0 < shape[-2] <= size[0]
                and 0 < shape[-1] <= size[1]
            )
        if not fits:
            raise ValueError(f"its output '{name}' has the shape {shape}, expected {expected}")
