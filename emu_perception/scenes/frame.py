"""One rendered image with everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emu_perception.camera import Intrinsics


@dataclass(frozen=True)
class SceneFrame:
    """A rendered image and its exact labels. Camera frame: x right, y down, z forward."""

    image: NDArray[np.uint8]
    """`(H, W, 3)` RGB."""
    labels: NDArray[np.uint8]
    """`(H, W)` class ids of the kind's label set, 255 = ignore."""
    depth: NDArray[np.float32]
    """`(H, W)` metres along the optical axis, 0 = none (sky, the ego vehicle)."""
    normals: NDArray[np.float32]
    """`(H, W, 3)` unit, facing the camera; 0 where there is none."""
    edges: NDArray[np.bool_]
    """`(H, W)` borders between instances."""
    intrinsics: Intrinsics
    odd: NDArray[np.bool_]
    """`(H, W)` pixels of out-of-distribution objects (their labels are 255)."""
