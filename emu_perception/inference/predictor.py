"""The seam between networks and everything that uses them: RGB array in, `Prediction` out."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emu_perception.camera import Intrinsics
from emu_perception.images import MAX_ASPECT, is_thin
from emu_perception.inference.engines.base import (
    choose_device,
    choose_engine,
    choose_precision,
    make_engine,
)
from emu_perception.inference.model_file import (
    LoadedModel,
    ModelFileError,
    ModelSpec,
    open_model,
)
from emu_perception.labels import LabelSet
from emu_perception.prediction import DEPTH_MAPS, UNLABELLED, Prediction

STRIDE = 32
"""Networks take heights and widths that are multiples of their coarsest feature scale."""
SEMANTIC_MAPS = frozenset({"labels", "confidence", "semantic_entropy"})
OTHER_MAPS = {"normals", "edges", "human_parts", "saliency"}
"""Each named as its task."""
EPISTEMIC_MAPS = {"semantic": "semantic_epistemic", "depth": "depth_epistemic"}
ENGINE_MAPS = {
    "labels": {"classes"},
    "confidence": {"confidence"},
    "semantic_entropy": {"entropy"},
    "probabilities": {"probabilities"},
    "depth": {"mean"},
    "depth_variance": {"mean", "variance"},
    "semantic_epistemic": {"mutual_information"},
    "depth_epistemic": {"mean", "epistemic_variance"},
    "normals": {"normals"},
    "edges": {"edges"},
    "human_parts": {"human_parts"},
    "saliency": {"saliency"},
}
"""What an engine must compute for each map."""
OWN_NAMES = {
    "classes": "labels",
    "entropy": "semantic_entropy",
    "mutual_information": "semantic_epistemic",
}
"""`Prediction` fields that engines call otherwise."""


class Predictor:
    """Runs a model on images of any size; the same for the node, bags, evaluation and users.

    Args:
        model: what `load_model` returned.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32`, `fp16` or `bf16`.
        engine: `auto` (OpenVINO on a CPU where it is installed), or one of `engines.ENGINES`.

    Attributes:
        min_confidence: labels below it become 255 with confidence 0; 0 keeps all of them.
        masks_depth: depth outside the model's range, and of classes without one such as the sky,
            becomes NaN. False: it is limited to the range and stays, so that what two models say
            of the same pixels can be compared.

    All may be changed between calls. A predictor serves one thread at a time.
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
    ) -> None:
        self.spec: ModelSpec = model.spec
        self.path: Path = model.path
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.min_confidence = 0.0
        self.masks_depth = True
        traits = model.traits
        self.engine = choose_engine(engine, self.device, traits.stochastic)
        self._epistemic, self._variance = traits.epistemic, traits.depth_variance
        self._engine = make_engine(self.engine, model, self.device, self.precision)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
    ) -> Predictor:
        """Load a model file, by path or by a shipped model's name; empty means the default.

        Raises:
            ModelFileError: the file is missing, damaged or of another kind.
            ValueError: an unknown or unavailable device, precision or engine.
        """
        return cls(open_model(path), device, precision, engine)

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
            maps |= {"depth", "depth_variance"} if self._variance else {"depth"}
        maps |= OTHER_MAPS & set(self.spec.tasks)
        if self._epistemic:
            maps |= {m for task, m in EPISTEMIC_MAPS.items() if task in self.spec.tasks}
        return maps

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the network sees an image: its own area, the image's proportions."""
        scale = math.sqrt(math.prod(self.spec.input_size) / (height * width))
        return (
            max(1, round(height * scale / STRIDE)) * STRIDE,
            max(1, round(width * scale / STRIDE)) * STRIDE,
        )

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
        found = self.predict_on_device(image, intrinsics, maps=maps, output_size=output_size)
        return Prediction(**{name: value.cpu().numpy() for name, value in found.items()})

    @torch.inference_mode()
    def predict_on_device(
        self,
        image: np.ndarray,
        intrinsics: Intrinsics | None = None,
        *,
        maps: Collection[str] | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """As `predict`, but the maps stay where the network runs, by name of `Prediction` fields.

        On a GPU they may still be on their way when this returns: they are ready in the order of
        torch's current stream.
        """
        _check_image(image)
        height, width = image.shape[:2]
        if intrinsics is not None and (intrinsics.height, intrinsics.width) != (height, width):
            raise ValueError(
                f"the intrinsics are for a {intrinsics.width} x {intrinsics.height} image, "
                f"the image is {width} x {height} (width x height)"
            )
        wanted = self._check_maps(maps)
        size = (height, width) if output_size is None else output_size
        if min(size) < 1:
            raise ValueError(f"output_size must be positive, got {size}")
        camera = self._seen_camera(intrinsics, height, width)
        found = self._engine.run(
            np.ascontiguousarray(image),
            self.network_size(height, width),
            size,
            self._engine_maps(wanted),
            camera if self.spec.rays else None,
        )
        if "mean" in found:
            found.update(self._metric_depth(found, self._focal_ratio(camera), intrinsics is None))
        if self.min_confidence > 0 and "confidence" in found:
            doubtful = found["confidence"] < self.min_confidence
            found["confidence"] = found["confidence"].masked_fill(doubtful, 0.0)
            if "classes" in found:
                found["classes"] = found["classes"].masked_fill(doubtful, UNLABELLED)
        named = {OWN_NAMES.get(name, name): value for name, value in found.items()}
        return {name: named[name] for name in wanted}

    def warm_up(self, height: int, width: int, output_size: tuple[int, int] | None = None) -> None:
        """Run the model on a black image, so that the first image of this size is not delayed.

        Args:
            height, width: of the images to come, in pixels.
            output_size: height and width of the maps; by default those of the image.

        Raises:
            ModelFileError: maps are not finite; damaged weights and a too small precision do this.
        """
        camera = self._seen_camera(None, height, width)
        found = self._engine.run(
            np.zeros((height, width, 3), np.uint8),
            self.network_size(height, width),
            output_size or (height, width),
            self._engine_maps(self._check_maps(None)),
            camera if self.spec.rays else None,
        )
        for name, values in found.items():
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise ModelFileError(
                    f"{self.path}: on a black image '{name}' is not finite with {self.engine}, "
                    f"{self.precision}: the weights are damaged or need another precision"
                )

    def close(self) -> None:
        """Release the network and the device's memory; the predictor is of no use afterwards."""
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

    def _engine_maps(self, wanted: frozenset[str]) -> frozenset[str]:
        maps = set().union(*(ENGINE_MAPS[name] for name in wanted))
        some_without_depth = self.label_set is not None and self.label_set.without_depth
        if self.masks_depth and wanted & DEPTH_MAPS and some_without_depth:
            maps.add("classes")
        if wanted & {"labels"} and self.min_confidence > 0:
            maps.add("confidence")
        return frozenset(maps)

    def _seen_camera(
        self, intrinsics: Intrinsics | None, height: int, width: int
    ) -> Intrinsics | None:
        """The camera of the network's input, assumed where it is unknown; None where no matter."""
        camera = self.spec.camera
        if camera is None:
            return None
        if intrinsics is None:
            intrinsics = camera.assume(width, height)
        rows, columns = self.network_size(height, width)
        return intrinsics.resized(columns, rows)

    def _focal_ratio(self, seen: Intrinsics | None) -> float:
        """f / f0, with f the focal length in pixels of the network's input."""
        if seen is None or self.spec.camera is None:
            return 1.0
        return math.sqrt(seen.fx * seen.fy) / self.spec.camera.canonical_focal_length

    def _metric_depth(
        self, found: dict[str, Tensor], focal_ratio: float, unknown_camera: bool
    ) -> dict[str, Tensor]:
        """Canonical mean and variance to metres; see `masks_depth`."""
        depth = found["mean"] * focal_ratio
        maps = {"depth": depth if self.masks_depth else depth.clamp(*self.spec.depth_range)}
        if "variance" in found:
            maps["depth_variance"] = found["variance"] * focal_ratio**2
            if unknown_camera and self.spec.camera is not None:
                assumed = self.spec.camera.assumed_focal_std * maps["depth"]
                maps["depth_variance"] = maps["depth_variance"] + assumed**2
        if "epistemic_variance" in found:
            maps["depth_epistemic"] = found["epistemic_variance"] * focal_ratio**2
        if not self.masks_depth:
            return maps
        invalid = self._without_depth(maps, found.get("classes"))
        return {name: value.masked_fill(invalid, math.nan) for name, value in maps.items()}

    def _without_depth(self, maps: dict[str, Tensor], classes: Tensor | None) -> Tensor:
        """Where depth says nothing: beyond the range, or of a class without one."""
        depth = maps["depth"]
        nearest, farthest = self.spec.depth_range
        invalid = (depth <= 0) | (depth < nearest) | (depth > farthest)
        if self.label_set is not None and classes is not None:
            for index in self.label_set.without_depth_ids:
                invalid |= classes == index
        return invalid


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the image must be a NumPy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"the image must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}"
        )
    if min(image.shape[:2]) < 1:
        raise ValueError(f"the image is empty: {image.shape[1]} x {image.shape[0]} pixels")
    if is_thin(*image.shape[:2]):
        raise ValueError(
            f"the image is {image.shape[1]} x {image.shape[0]} pixels, expected proportions of at "
            f"most {MAX_ASPECT}:1: crop it"
        )
