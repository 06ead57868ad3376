"""Predict one image: classes, depth and their uncertainties as NumPy arrays.

python examples/predict.py street.jpg --fov 70
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from emu_perception import Intrinsics, Predictor


def main() -> None:
    """Print the fraction, the median depth and the mean deviation of each class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="street", help="model file or name (default: street)")
    parser.add_argument("--fov", type=float, help="horizontal field of view in degrees")
    arguments = parser.parse_args()

    stored = cv2.imread(str(arguments.image))
    if stored is None:
        parser.error(f"{arguments.image} cannot be read as an image")
    image = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    camera = None  # unknown: the model assumes a focal length
    if arguments.fov is not None:
        camera = Intrinsics.from_field_of_view(width, height, arguments.fov)

    predictor = Predictor.from_pretrained(arguments.model)
    prediction = predictor.predict(image, camera)
    assert prediction.labels is not None and prediction.depth is not None
    assert prediction.depth_std is not None and predictor.label_set is not None

    print(f"{'class':<14}{'pixels':>8}{'depth':>10}{'deviation':>11}")
    for index, name in enumerate(predictor.label_set.names):
        pixels = prediction.labels == index
        valid = pixels & np.isfinite(prediction.depth)  # NaN: no valid depth
        if not pixels.any():
            continue
        row = f"{name:<14}{pixels.mean():>8.1%}"
        if valid.any():
            row += f"{np.median(prediction.depth[valid]):>8.1f} m"
            row += f"{prediction.depth_std[valid].mean():>9.1f} m"
        print(row)


if __name__ == "__main__":
    main()
