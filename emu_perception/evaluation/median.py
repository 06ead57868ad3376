"""Depth that is known up to a scale, brought to that of the labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emu_perception.prediction import Prediction


def scaled_to_median(
    prediction: Prediction, depth: np.ndarray, depth_range: tuple[float, float]
) -> Prediction:
    """The prediction with its depth as large as an image's labels in the median.

    The standard scoring of depth that was trained without labels (Zhou et al., CVPR 2017, section
    4.1; Monodepth2, ICCV 2019).

    Args:
        prediction: of one image; without depth it stays as it is.
        depth: `(H, W)` metres, 0 = none.
        depth_range: metres; labels outside do not count.
    """
    if prediction.depth is None:
        return prediction
    low, high = depth_range
    known = np.isfinite(prediction.depth) & (depth > low) & (depth < high)
    if not known.any():
        return prediction
    own = max(float(np.median(prediction.depth[known])), 1e-6)
    factor = np.float32(float(np.median(depth[known])) / own)

    def squared(variance: np.ndarray | None) -> np.ndarray | None:
        return None if variance is None else variance * factor**2

    return replace(
        prediction,
        depth=prediction.depth * factor,
        depth_variance=squared(prediction.depth_variance),
        depth_epistemic=squared(prediction.depth_epistemic),
    )
