"""Outputs by the name of their topic, in their published unit and encoding.

The node publishes these arrays, and offline annotation writes the same arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from emu_perception.labels import LabelSet
from emu_perception.messages.point_cloud import organized_cloud
from emu_perception.prediction import Prediction
from emu_perception.tasks import TASKS, DenseTask, other_tasks
from emu_perception.visualization.colors import (
    colorize_labels,
    colorize_scalar,
    overlay,
)

Encoding = Literal["mono8", "32FC1", "32FC3", "rgb8"]
LABELS_TOPIC = TASKS["semantic"].topic
DEPTH_TOPIC = TASKS["depth"].topic
POINTS_TOPIC = "points"
CAMERA_INFO_TOPIC = "depth/camera_info"
LABEL_INFO_TOPIC = "semantic/label_info"


@dataclass(frozen=True)
class Style:
    """How the coloured outputs look."""

    overlay_alpha: float = 0.5
    """Weight of the class colours over the image, 0–1."""
    depth_colormap: str = "turbo_r"
    uncertainty_colormap: str = "magma"
    depth_max: float = 80.0
    """Metres at the far end of the depth colours."""
    depth_uncertainty_max: float = 10.0
    """Standard deviation in metres at the far end of its colours."""
    semantic_uncertainty_max: float = 1.0
    """Fraction of the largest entropy, 0–1, at the end of its colours."""


class Maps:
    """A prediction in its published units; each map is computed once, when it is used.

    Args:
        prediction: maps `(H, W)` of one image, in the predictor's units.
        image: that image, uint8 RGB of any size; only the overlay needs it.
        label_set: classes of the model; None for one without the task.
    """

    def __init__(
        self,
        prediction: Prediction,
        image: np.ndarray,
        label_set: LabelSet | None,
        style: Style,
    ) -> None:
        self.prediction = prediction
        self.style = style
        self._rendered: dict[str, np.ndarray] = {}
        self._image = image
        self._label_set = label_set
        classes = len(label_set) if label_set else 0
        self._largest_entropy = math.log(classes) if classes > 1 else 1.0

    def render(self, topic: str) -> np.ndarray:
        """The pixels of an image topic; its compressed sibling shares them."""
        if topic not in self._rendered:
            output = image_output(topic)
            if output is None:
                raise KeyError(topic)
            self._rendered[topic] = output.render(self)
        return self._rendered[topic]

    @cached_property
    def image(self) -> np.ndarray:
        """`(H, W, 3)` uint8 RGB, at the size of the maps."""
        height, width = self.prediction.size
        if self._image.shape[:2] == (height, width):
            return self._image
        return cv2.resize(self._image, (width, height), interpolation=cv2.INTER_AREA)

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8 class ids, 255 = unlabelled."""
        return _present(self.prediction.labels)

    @cached_property
    def confidence(self) -> np.ndarray:
        """uint8, the largest class probability x 255."""
        return (_present(self.prediction.confidence) * 255.0 + 0.5).astype(np.uint8)

    @cached_property
    def semantic_uncertainty(self) -> np.ndarray:
        """float32, entropy / ln C: 0 = certain, 1 = uniform."""
        return _present(self.prediction.semantic_entropy) / np.float32(self._largest_entropy)

    @cached_property
    def semantic_epistemic(self) -> np.ndarray:
        """float32, mutual information / ln C."""
        return _present(self.prediction.semantic_epistemic) / np.float32(self._largest_entropy)

    @cached_property
    def depth(self) -> np.ndarray:
        """float32 metres, NaN = invalid (REP-117, REP-118)."""
        return _present(self.prediction.depth)

    @cached_property
    def depth_std(self) -> np.ndarray:
        """float32, standard deviation in metres."""
        return np.sqrt(_present(self.prediction.depth_variance))

    @cached_property
    def depth_epistemic_std(self) -> np.ndarray:
        """float32, standard deviation of the members' means in metres."""
        return np.sqrt(_present(self.prediction.depth_epistemic))

    @cached_property
    def overlay(self) -> np.ndarray:
        """The image under the colours of its classes."""
        return overlay(self.image, self.labels, self.label_set, self.style.overlay_alpha)

    @property
    def label_set(self) -> LabelSet:
        """Classes of the labels; ValueError for a model without them."""
        if self._label_set is None:
            raise ValueError("this model has no classes")
        return self._label_set

    def uncertainty_colors(self, values: np.ndarray, vmax: float) -> np.ndarray:
        """An uncertainty in colours from 0 to `vmax`."""
        return colorize_scalar(values, 0.0, vmax, self.style.uncertainty_colormap)


def _present(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise ValueError("this map was not requested from the predictor")
    return values


@dataclass(frozen=True)
class Output:
    """One image topic."""

    encoding: Encoding
    needs: frozenset[str]
    """Names of the `Prediction` fields that it is made of."""
    render: Callable[[Maps], np.ndarray]
    meaning: str


IMAGE_OUTPUTS: dict[str, Output] = {
    LABELS_TOPIC: Output(
        "mono8", frozenset({"labels"}), lambda m: m.labels, TASKS["semantic"].meaning
    ),
    "semantic/confidence": Output(
        "mono8",
        frozenset({"confidence"}),
        lambda m: m.confidence,
        "largest class probability, 0–255",
    ),
    "semantic/uncertainty": Output(
        "32FC1",
        frozenset({"semantic_entropy"}),
        lambda m: m.semantic_uncertainty,
        "entropy / ln C: 0 = certain, 1 = uniform",
    ),
    "semantic/epistemic_uncertainty": Output(
        "32FC1",
        frozenset({"semantic_epistemic"}),
        lambda m: m.semantic_epistemic,
        "mutual information / ln C; models with members only",
    ),
    DEPTH_TOPIC: Output(
        "32FC1",
        frozenset({"depth"}),
        lambda m: m.depth,
        TASKS["depth"].meaning,
    ),
    "depth/uncertainty": Output(
        "32FC1",
        frozenset({"depth_variance"}),
        lambda m: m.depth_std,
        "standard deviation of the depth, metres",
    ),
    "depth/epistemic_uncertainty": Output(
        "32FC1",
        frozenset({"depth_epistemic"}),
        lambda m: m.depth_epistemic_std,
        "standard deviation of the members' means, metres; models with members only",
    ),
    "overlay": Output(
        "rgb8", frozenset({"labels"}), lambda m: m.overlay, "image with its classes' colours"
    ),
    "semantic/color": Output(
        "rgb8",
        frozenset({"labels"}),
        lambda m: colorize_labels(m.labels, m.label_set),
        "classes in their colours",
    ),
    "semantic/uncertainty_color": Output(
        "rgb8",
        frozenset({"semantic_entropy"}),
        lambda m: m.uncertainty_colors(m.semantic_uncertainty, m.style.semantic_uncertainty_max),
        "semantic/uncertainty in colours",
    ),
    "depth/color": Output(
        "rgb8",
        frozenset({"depth"}),
        lambda m: colorize_scalar(m.depth, 0.0, m.style.depth_max, m.style.depth_colormap),
        "depth/image in colours",
    ),
    "depth/uncertainty_color": Output(
        "rgb8",
        frozenset({"depth_variance"}),
        lambda m: m.uncertainty_colors(m.depth_std, m.style.depth_uncertainty_max),
        "depth/uncertainty in colours",
    ),
}
"""Image topics of classes and depth, by their relative names."""
_ENCODINGS: dict[str, Encoding] = {"classes": "mono8", "binary": "32FC1", "direction": "32FC3"}


def image_outputs() -> dict[str, Output]:
    """Every image topic by its relative name: `IMAGE_OUTPUTS` and one for each other task."""

    def output(task: DenseTask) -> Output:
        return Output(
            _ENCODINGS[task.kind],
            frozenset({task.field}),
            lambda maps: _present(maps.prediction.get(task.field)),
            task.meaning,
        )

    return IMAGE_OUTPUTS | {task.topic: output(task) for task in other_tasks().values()}


def image_output(topic: str) -> Output | None:
    """The output of an image topic; None for another topic."""
    return IMAGE_OUTPUTS.get(topic) or image_outputs().get(topic)


POINT_MAPS = frozenset({"depth", "depth_variance", "labels", "semantic_entropy"})
"""`Prediction` fields that the point cloud carries where the model has them."""


def available_outputs(available_maps: Collection[str]) -> dict[str, Output]:
    """The image topics that a model with these maps can fill."""
    return {t: o for t, o in image_outputs().items() if o.needs <= frozenset(available_maps)}


def needed_maps(topics: Collection[str], available_maps: Collection[str]) -> frozenset[str]:
    """The `Prediction` fields that image topics and the point cloud are made of."""
    needed: frozenset[str] = frozenset()
    outputs = image_outputs()
    for topic in topics:
        if topic == POINTS_TOPIC:
            needed |= POINT_MAPS
        elif topic in outputs:
            needed |= outputs[topic].needs
    return needed & frozenset(available_maps)


def point_cloud(maps: Maps, rays: np.ndarray) -> np.ndarray:
    """The points of a prediction, as `organized_cloud` gives them.

    Args:
        maps: of a prediction with depth.
        rays: `(H, W, 2)` float32, x/z and y/z of the maps' pixels.
    """
    present = maps.prediction
    return organized_cloud(
        maps.depth,
        rays,
        maps.image,
        present.labels,
        None if present.semantic_entropy is None else maps.semantic_uncertainty,
        None if present.depth_variance is None else maps.depth_std,
    )
