"""The seam between networks and everything that uses them: RGB array in, `Prediction` out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emu_perception.camera import Intrinsics
from emu_perception.engines.pytorch import PyTorchEngine, choose_device, choose_precision
from emu_perception.labels import LabelSet
from emu_perception.model_file import LoadedModel, ModelSpec, load_model
from emu_perception.networks.decoder import resize
from emu_perception.prediction import UNLABELLED, Prediction
from emu_perception.uncertainty import DepthMaps, activate_depth, depth_maps, semantic_maps

STRIDE = 32
"""Networks take heights and widths that are multiples of their coarsest feature scale."""
SEMANTIC_MAPS = frozenset({"labels", "confidence", "semantic_uncertainty"})
DEPTH_MAPS = frozenset({"depth", "depth_variance"})


class Predictor:
    """Runs a model on images of any size; the same for the node, bags, evaluation and users.

    Args:
        model: what `load_model` returned.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32`, `fp16` or `bf16`.

    Attributes:
        min_confidence: labels below it become 255 with confidence 0; 0 keeps all of them.
        max_depth_std: depth with a larger standard deviation, in metres, becomes NaN.

    Both may be changed between calls. A predictor serves one thread at a time.
    """

    def __init__(self, model: LoadedModel, device: str = "auto", precision: str = "auto") -> None:
        self.spec: ModelSpec = model.spec
        self.path: Path = model.path
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.min_confidence = 0.0
        self.max_depth_std = math.inf
        self._engine = PyTorchEngine(model.network, self.device, self.precision)
        scale = 255.0 * torch.tensor(self.spec.normalization_std)
        offset = torch.tensor(self.spec.normalization_mean) / torch.tensor(
            self.spec.normalization_std
        )
        self._scale = (1.0 / scale).view(1, 3, 1, 1).to(self.device)
        self._offset = offset.view(1, 3, 1, 1).to(self.device)

    @classmethod
    def from_file(
        cls, path: str | Path, device: str = "auto", precision: str = "auto"
    ) -> Predictor:
        """Load a model file, by path or by a shipped model's name; empty means the default.

        Raises:
            ModelFileError: the file is missing, damaged or of another kind.
            ValueError: an unknown or unavailable device or precision.
        """
        return cls(load_model(path), device, precision)

    @property
    def label_set(self) -> LabelSet | None:
        """Classes of the model; None for a depth-only one."""
        return self.spec.label_set if "semantic" in self.spec.tasks else None

    @property
    def available_maps(self) -> frozenset[str]:
        """Names of the `Prediction` fields that this model can fill, probabilities included."""
        maps: frozenset[str] = frozenset()
        if "semantic" in self.spec.tasks:
            maps |= SEMANTIC_MAPS | {"probabilities"}
        if "depth" in self.spec.tasks:
            maps |= DEPTH_MAPS
        return maps

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the network sees an image: its own area, the image's proportions."""
        scale = math.sqrt(math.prod(self.spec.input_size) / (height * width))
        return (
            max(1, round(height * scale / STRIDE)) * STRIDE,
            max(1, round(width * scale / STRIDE)) * STRIDE,
        )

    @torch.inference_mode()
    def predict(
        self,
        image: np.ndarray,
        intrinsics: Intrinsics | None = None,
        *,
        maps: Collection[str] | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> Prediction:
        """Dense maps of one image.

        Args:
            image: uint8 RGB `(H, W, 3)`, any size.
            intrinsics: of this image, undistorted; None for an unknown camera, whose focal length
                the model then assumes, with an added variance.
            maps: names of `Prediction` fields; what is not named is not computed. By default all
                that the model has but the probabilities.
            output_size: height and width of the maps; by default those of the image.

        Raises:
            ValueError: the image, the intrinsics or a map's name does not fit; the message says
                what was expected.
        """
        _check_image(image)
        height, width = image.shape[:2]
        if intrinsics is not None and (intrinsics.height, intrinsics.width) != (height, width):
            raise ValueError(
                f"the intrinsics are for a {intrinsics.width} x {intrinsics.height} image, "
                f"the image is {width} x {height} (width x height)"
            )
        wanted = self._check_maps(maps)
        size = tuple(output_size) if output_size is not None else (height, width)
        if min(size) < 1:
            raise ValueError(f"output_size must be positive, got {size}")
        raw = self._engine.run(self._prepare(image))
        semantic = self._semantic(raw.logits, wanted, size) if raw.logits is not None else {}
        depth = {}
        if raw.depth is not None and wanted & DEPTH_MAPS:
            ratio = self._focal_ratio(intrinsics, height, width)
            depth = self._depth(raw.depth, ratio, intrinsics is None, size, semantic.get("classes"))
        found = {**semantic, **depth}
        return Prediction(**{n: m.cpu().numpy() for n, m in found.items() if n in wanted})

    def close(self) -> None:
        """Release the network; on a GPU its memory becomes free. The predictor is of no use after."""
        self._engine.close()

    def _check_maps(self, maps: Collection[str] | None) -> frozenset[str]:
        if maps is None:
            return self.available_maps - {"probabilities"}
        unknown = set(maps) - self.available_maps
        if unknown:
            raise ValueError(
                f"this model has no {', '.join(sorted(unknown))}; it has "
                f"{', '.join(sorted(self.available_maps))}"
            )
        return frozenset(maps)

    def _prepare(self, image: np.ndarray) -> Tensor:
        size = self.network_size(*image.shape[:2])
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        x = pixels.permute(2, 0, 1)[None].float()
        if size != image.shape[:2]:
            # Without the low-pass filter, shrinking a large image would alias.
            x = torch.nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        return x * self._scale - self._offset

    def _focal_ratio(self, intrinsics: Intrinsics | None, height: int, width: int) -> float:
        """f / f0, with f the focal length in pixels of the network's input."""
        camera = self.spec.camera
        if camera is None:
            return 1.0
        if intrinsics is None:
            focal = camera.assumed_focal_ratio * width
            intrinsics = Intrinsics(focal, focal, width / 2, height / 2, width, height)
        rows, columns = self.network_size(height, width)
        seen = intrinsics.resized(columns, rows)
        return math.sqrt(seen.fx * seen.fy) / camera.canonical_focal_length

    def _semantic(
        self, logits: Tensor, wanted: frozenset[str], size: Sequence[int]
    ) -> dict[str, Tensor]:
        depthless = bool(self.spec.label_set and self.spec.label_set.without_depth)
        needed = wanted & (SEMANTIC_MAPS | {"probabilities"})
        if not needed and not (wanted & DEPTH_MAPS and depthless):
            return {}
        full = resize(logits, size)
        if not needed:
            return {"classes": full[0].argmax(0)}
        maps = semantic_maps(full[None], self.spec.calibration.temperature)
        labels = maps.labels[0].to(torch.uint8)
        confidence = maps.confidence[0]
        if self.min_confidence > 0:
            doubtful = confidence < self.min_confidence
            labels = labels.masked_fill(doubtful, UNLABELLED)
            confidence = confidence.masked_fill(doubtful, 0.0)
        return {
            "classes": maps.labels[0],
            "labels": labels,
            "confidence": confidence,
            "semantic_uncertainty": maps.entropy[0],
            "probabilities": maps.probabilities[0],
        }

    def _depth(
        self,
        raw: Tensor,
        focal_ratio: float,
        unknown_camera: bool,
        size: Sequence[int],
        classes: Tensor | None,
    ) -> dict[str, Tensor]:
        mean, variance = activate_depth(resize(raw, size)[None], dim=2)
        maps: DepthMaps = depth_maps(mean, variance, self.spec.calibration.depth_variance_scale)
        depth = maps.mean[0] * focal_ratio
        spread = maps.variance[0] * focal_ratio**2
        if unknown_camera and self.spec.camera is not None:
            spread = spread + (self.spec.camera.assumed_focal_std * depth) ** 2
        nearest, farthest = self.spec.depth_range
        invalid = (depth <= 0) | (depth < nearest) | (depth > farthest)
        if self.max_depth_std < math.inf:
            invalid |= spread > self.max_depth_std**2
        if classes is not None and self.spec.label_set is not None:
            for index in self.spec.label_set.without_depth_ids:
                invalid |= classes == index
        return {
            "depth": depth.masked_fill(invalid, math.nan),
            "depth_variance": spread.masked_fill(invalid, math.nan),
        }


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the image must be a NumPy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"the image must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}"
        )
    if min(image.shape[:2]) < 1:
        raise ValueError(f"the image is empty: {image.shape[1]} x {image.shape[0]} pixels")
