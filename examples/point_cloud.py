"""Write the predicted depth of an image as a point cloud (PLY) with colours and classes.

python examples/point_cloud.py street.jpg --fov 70 --max-std 3 --out cloud.ply
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from emu_perception import Intrinsics, Predictor


def write_ply(path: Path, points: np.ndarray, colors: np.ndarray, labels: np.ndarray) -> None:
    """Write points `(N, 3)` float32 in metres, RGB colours `(N, 3)` uint8 and class ids `(N,)`."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    fields += [("red", "u1"), ("green", "u1"), ("blue", "u1"), ("label", "u1")]
    vertices = np.empty(len(points), np.dtype(fields))
    for column, name in enumerate("xyz"):
        vertices[name] = points[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = colors[:, column]
    vertices["label"] = labels
    kinds = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {kinds[kind]} {name}" for name, kind in fields]
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + vertices.tobytes())


def main() -> None:
    """Predict an image and write the pixels with a certain depth as points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, default=Path("cloud.ply"))
    parser.add_argument("--model", default="street", help="model file or name (default: street)")
    parser.add_argument("--fov", type=float, default=70, help="horizontal field of view in degrees")
    parser.add_argument("--max-std", type=float, default=5, help="largest deviation in metres")
    arguments = parser.parse_args()

    stored = cv2.imread(str(arguments.image))
    if stored is None:
        parser.error(f"{arguments.image} cannot be read as an image")
    image = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    camera = Intrinsics.from_field_of_view(image.shape[1], image.shape[0], arguments.fov)
    predictor = Predictor.from_pretrained(arguments.model)
    prediction = predictor.predict(image, camera).with_depth_std_up_to(arguments.max_std)
    assert prediction.labels is not None and prediction.depth is not None

    # Optical frame (REP-103): x right, y down, z forward.
    points = np.dstack([camera.rays() * prediction.depth[..., None], prediction.depth])
    valid = np.isfinite(prediction.depth)
    write_ply(arguments.out, points[valid], image[valid], prediction.labels[valid])
    print(f"{arguments.out}: {valid.sum()} points, {valid.mean():.0%} of the pixels")


if __name__ == "__main__":
    main()
