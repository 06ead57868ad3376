"""The seam between networks and everything that uses them: RGB array in, `Prediction` out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.images import MAX_ASPECT, is_thin
from emu_perception.inference.deployment import FEATURES
from emu_perception.inference.domain import DomainDistance
from emu_perception.inference.engines.base import (
    Frame,
    choose_device,
    choose_engine,
    choose_precision,
    make_engine,
)
from emu_perception.inference.model_file import DeployedModel, LoadedModel, open_model
from emu_perception.inference.model_names import ModelFileError
from emu_perception.inference.model_spec import ModelSpec, Traits
from emu_perception.inference.postprocessing import MapSettings
from emu_perception.labels import LabelSet
from emu_perception.prediction import Prediction
from emu_perception.tasks import other_tasks

STRIDE = 32
"""Networks take heights and widths that are multiples of their coarsest feature scale."""
SEMANTIC_MAPS = frozenset({"labels", "confidence", "semantic_entropy"})
DOMAIN = "domain_distance"
EPISTEMIC_MAPS = {"semantic": "semantic_epistemic", "depth": "depth_epistemic"}


class Predictor:
    """Runs a model on images of any size; the same for the node, bags, evaluation and users.

    Args:
        model: what `open_model` or `load_model` returned.
        device: `auto`, `cpu` or `cuda`; for a `.onnx` file with ONNX Runtime also `tensorrt`.
        precision: `auto` (see `choose_precision`), `fp32`, `fp16` or `bf16`.
        engine: `auto` (OpenVINO on a CPU where it is installed), or one of `engines.ENGINES`.

    Attributes:
        min_confidence: labels below it become 255 with confidence 0; 0 keeps all of them.
        masks_depth: depth outside the model's range, and of classes without one such as the sky,
            becomes NaN. False: it is limited to the range and stays, so that two models can be
            compared on the same pixels.

    All may be changed between calls. A predictor serves one thread at a time.
    """

    def __init__(
        self,
        model: LoadedModel | DeployedModel,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
    ) -> None:
        self.spec: ModelSpec = model.spec
        self.path: Path = model.path
        deployed = isinstance(model, DeployedModel)
        self.device = choose_device(device, deployed)
        self.min_confidence = 0.0
        self.masks_depth = True
        self._traits = model.traits
        self.engine = choose_engine(engine, self.device, self._traits.stochastic, deployed)
        self.precision = choose_precision(
            precision, self.device, self.engine, model.spec.checked_precisions
        )
        self._domain = None if model.spec.domain is None else DomainDistance(model.spec.domain)
        self._engine = make_engine(self.engine, model, self.device, self.precision)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
    ) -> Predictor:
        """Load a shipped model by its name, such as `street`, or a model file by its path.

        Args:
            name: see `resolve_model_path`; empty means the default model.
            device: see `Predictor`, as are `precision` and `engine`.

        Raises:
            ModelFileError: the file is missing, damaged or of another kind.
            ValueError: an unknown or unavailable device, precision or engine.
        """
        return cls(open_model(name), device, precision, engine)

    @property
    def label_set(self) -> LabelSet | None:
        """Classes of the model; None for a depth-only one."""
        return self.spec.label_set if "semantic" in self.spec.tasks else None

    @property
    def available_maps(self) -> frozenset[str]:
        """Names of the `Prediction` fields that this model can fill, probabilities included."""
        return self.maps_of(self.spec, self._traits)

    @staticmethod
    def maps_of(spec: ModelSpec, traits: Traits) -> frozenset[str]:
        """`available_maps` of a model that is not loaded."""
        maps: frozenset[str] = frozenset()
        if spec.domain is not None:
            maps |= {DOMAIN}
        if "semantic" in spec.tasks:
            maps |= SEMANTIC_MAPS | {"probabilities"}
        if "depth" in spec.tasks:
            maps |= {"depth", "depth_variance"} if traits.depth_variance else {"depth"}
        maps |= {task.field for name, task in other_tasks().items() if name in spec.tasks}
        if traits.epistemic:
            maps |= {m for task, m in EPISTEMIC_MAPS.items() if task in spec.tasks}
        return maps

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """See `network_size`."""
        return network_size(self.spec, height, width)

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
            ValueError: the image, the intrinsics or a map's name does not fit; the message states
                what was expected.
        """
        found = self.predict_on_device(image, intrinsics, maps=maps, output_size=output_size)
        return self.prediction(found)

    def predict_on_device(
        self,
        image: np.ndarray,
        intrinsics: Intrinsics | None = None,
        *,
        maps: Collection[str] | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> Mapping[str, Any]:
        """Predict, and leave the maps where the network runs, by name of `Prediction` fields.

        They are torch tensors of an engine of PyTorch, else NumPy arrays. In the place of
        `domain_distance` are the features that `prediction` computes it from. On a GPU they may
        still be on their way when this returns: they are ready in the order of torch's current
        stream.
        """
        frame, settings = self._frame(image, intrinsics, output_size)
        return self._engine.run(frame, self._engine_maps(maps), settings)

    def prediction(self, maps: Mapping[str, Any]) -> Prediction:
        """Convert the result of `predict_on_device` to a `Prediction`; waits for no stream."""
        found = {name: _on_host(value) for name, value in maps.items()}
        features = found.pop(FEATURES, None)
        if features is None or self._domain is None:
            return Prediction().having(found)
        return Prediction(domain_distance=float(self._domain(features))).having(found)

    def features(
        self, image: np.ndarray, intrinsics: Intrinsics | None = None
    ) -> np.ndarray | None:
        """The encoder's view of an image as one vector: its coarsest feature map averaged.

        Args: as `predict`.

        Returns:
            `(E,)` float32; None for a network without an encoder.
        """
        frame, settings = self._frame(image, intrinsics, None)
        found = self._engine.run(frame, frozenset({FEATURES}), settings)
        return _on_host(found[FEATURES]) if FEATURES in found else None

    def _frame(
        self,
        image: np.ndarray,
        intrinsics: Intrinsics | None,
        output_size: tuple[int, int] | None,
    ) -> tuple[Frame, MapSettings]:
        _check_image(image)
        height, width = image.shape[:2]
        if intrinsics is not None and (intrinsics.height, intrinsics.width) != (height, width):
            raise ValueError(
                f"the intrinsics are for a {intrinsics.width} x {intrinsics.height} image, "
                f"the image is {width} x {height} (width x height)"
            )
        size = (height, width) if output_size is None else output_size
        if min(size) < 1:
            raise ValueError(f"output_size must be positive, got {size}")
        camera = self._seen_camera(intrinsics, height, width)
        frame = Frame(
            np.ascontiguousarray(image),
            self.network_size(height, width),
            size,
            camera if self.spec.rays else None,
        )
        return frame, map_settings(
            self.spec,
            focal_ratio=self._focal_ratio(camera),
            known_camera=intrinsics is not None,
            min_confidence=self.min_confidence,
            masks_depth=self.masks_depth,
        )

    def warm_up(self, height: int, width: int, output_size: tuple[int, int] | None = None) -> None:
        """Run the model on a black image, so that the first image of this size is not delayed.

        Args:
            height, width: of the images to come, in pixels.
            output_size: height and width of the maps; by default those of the image.

        Raises:
            ModelFileError: maps are not finite; damaged weights and a too small precision do this.
        """
        image = np.zeros((height, width, 3), np.uint8)
        frame, settings = self._frame(image, None, output_size)
        # Masks and limits would hide what is not finite.
        unlimited = replace(
            settings, masks_depth=False, min_confidence=0.0, depth_range=(0.0, math.inf)
        )
        found = self._engine.run(frame, self._engine_maps(None), unlimited)
        for name, values in found.items():
            if not np.isfinite(_on_host(values)).all():
                raise ModelFileError(
                    f"{self.path}: on a black image '{name}' is not finite with {self.engine}, "
                    f"{self.precision}: the weights are damaged or need another precision"
                )

    def close(self) -> None:
        """Release the network and the device's memory; the predictor is of no use afterwards."""
        self._engine.close()

    def _engine_maps(self, maps: Collection[str] | None) -> frozenset[str]:
        """Checked names, with the features in the place of the domain distance."""
        wanted = self._check_maps(maps)
        return wanted - {DOMAIN} | {FEATURES} if DOMAIN in wanted else wanted

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

    def _seen_camera(
        self, intrinsics: Intrinsics | None, height: int, width: int
    ) -> Intrinsics | None:
        """The camera of the network's input, assumed if unknown; None for a model without one."""
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
        return self.spec.camera.metres_per_unit(seen.fx, seen.fy)


def network_size(spec: ModelSpec, height: int, width: int) -> tuple[int, int]:
    """The size at which the network sees an image: its own area, the image's proportions."""
    scale = math.sqrt(math.prod(spec.input_size) / (height * width))
    return (
        max(1, round(height * scale / STRIDE)) * STRIDE,
        max(1, round(width * scale / STRIDE)) * STRIDE,
    )


def map_settings(
    spec: ModelSpec,
    *,
    focal_ratio: float = 1.0,
    known_camera: bool = True,
    min_confidence: float = 0.0,
    masks_depth: bool = True,
) -> MapSettings:
    """How a model's raw outputs become maps; see `MapSettings`."""
    labels = spec.label_set if "semantic" in spec.tasks else None
    std = spec.camera.assumed_focal_std if spec.camera and not known_camera else 0.0
    return MapSettings(
        classes=len(labels) if labels else 0,
        temperature=spec.calibration.temperature,
        variance_scale=spec.calibration.depth_variance_scale,
        depth_range=spec.depth_range,
        without_depth=labels.without_depth_ids if labels else (),
        focal_ratio=focal_ratio,
        focal_std=std,
        min_confidence=min_confidence,
        masks_depth=masks_depth,
    )


def _on_host(value: Any) -> np.ndarray:
    """A NumPy array or a torch tensor as an array."""
    return value if isinstance(value, np.ndarray) else value.cpu().numpy()


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
