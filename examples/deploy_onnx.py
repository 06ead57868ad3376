"""Run a deployment file without PyTorch: with this package, or with ONNX Runtime alone.

python examples/deploy_onnx.py MODEL.onnx IMAGE [FOCAL_LENGTH_IN_PIXELS]
"""

import sys

import cv2
import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.inference.predictor import Predictor


def with_this_package(path: str, image: np.ndarray, focal: float | None) -> dict[str, np.ndarray]:
    """OpenVINO on the CPU; the fastest way."""
    height, width = image.shape[:2]
    camera = None
    if focal is not None:
        camera = Intrinsics.from_focal_ratio(width, height, focal / width)
    prediction = Predictor.from_pretrained(path).predict(image, camera)
    return {"labels": prediction.labels, "depth": prediction.depth}


def with_onnx_runtime(path: str, image: np.ndarray, focal: float | None) -> dict[str, np.ndarray]:
    """The file as any program can run it: image and camera in, maps out."""
    import onnxruntime

    height, width = image.shape[:2]
    camera = np.zeros(4, np.float32)  # unknown
    if focal is not None:
        camera = np.array([focal, focal, (width - 1) / 2, (height - 1) / 2], np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    size = np.zeros(2, np.int64)  # maps of the image's size
    names = ["labels", "depth"]
    maps = session.run(names, {"image": image, "camera": camera, "output_size": size})
    return dict(zip(names, maps))


def main() -> None:
    """Compare both ways on one image."""
    path, file, *rest = sys.argv[1:]
    image = cv2.cvtColor(cv2.imread(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    focal = float(rest[0]) if rest else None
    a, b = with_this_package(path, image, focal), with_onnx_runtime(path, image, focal)
    print(f"torch imported: {'torch' in sys.modules}")
    print(f"labels that agree: {(a['labels'] == b['labels']).mean():.4%}")
    print(f"depth: median {np.nanmedian(a['depth']):.2f} m, {np.nanmedian(b['depth']):.2f} m")


if __name__ == "__main__":
    main()
