"""The prediction for one image: the type that all packages above the networks use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np

DEPTH_MAPS = frozenset({"depth", "depth_variance", "depth_epistemic"})
"""Fields of `Prediction` that are NaN where the depth is."""
MIN_VARIANCE = 1e-6
"""m²; smaller variances of depth count as this in the Gaussian likelihood, which stays finite."""
UNLABELLED = 255
"""Class id of pixels without a label: void in ground truth, too uncertain in a prediction."""

_Holder = TypeVar("_Holder", bound="MapHolder")


@dataclass(frozen=True)
class MapHolder:
    """A dataclass with a field per task of this package; maps of other tasks are in `others`."""

    others: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Maps of tasks that are registered elsewhere, by field; see `tasks.register_task`."""

    def get(self, name: str) -> Any:
        """A map by the name of its field; None where it is missing."""
        return self.others.get(name) if name not in _names(self) else getattr(self, name)

    def having(self: _Holder, maps: Mapping[str, Any]) -> _Holder:
        """The same with other maps, by the name of their field; None removes one."""
        own = {name: value for name, value in maps.items() if name in _names(self)}
        others = {n: v for n, v in {**self.others, **maps}.items() if n not in own}
        return replace(self, **own, others={n: v for n, v in others.items() if v is not None})


def _names(holder: MapHolder) -> Iterable[str]:
    return [each.name for each in fields(holder)]


@dataclass(frozen=True)
class Prediction(MapHolder):
    """Dense maps of one RGB image, `(H, W)` unless noted, with H and W of the predictor's input.

    A map is None where the model lacks the task or the caller did not request it.

    Attributes:
        labels: uint8 class id; 255 where the confidence is below the predictor's `min_confidence`.
        confidence: float32 in [0, 1], the largest class probability; 0 where `labels` is 255.
        semantic_entropy: float32 in [0, ln C], entropy of the mean class probabilities, nats.
        depth: float32, metres along the optical axis; NaN where invalid.
        depth_variance: float32, predictive variance of the depth, square metres; NaN where `depth`
            is.
        semantic_epistemic: float32, mutual information between class and member, nats; only of
            models with members or split uncertainty.
        depth_epistemic: float32, variance of the members' means, square metres; as above.
        probabilities: float32 `(C, H, W)`, mean class probabilities; only when requested.
        normals: float32 `(H, W, 3)`, unit vectors in the optical frame towards the camera.
        edges: float32 in [0, 1], probability of a class boundary.
        human_parts: uint8, index in `labels.HUMAN_PARTS`; 0 = no part of a person.
        saliency: float32 in [0, 1], probability of a salient object.
        others: maps of tasks that are registered elsewhere, by field; see `tasks.register_task`.
        domain_distance: distance of the image from the model's training domain; 1 = the alarm's
            threshold. None for models without statistics of their domain.
    """

    labels: np.ndarray | None = None
    confidence: np.ndarray | None = None
    semantic_entropy: np.ndarray | None = None
    depth: np.ndarray | None = None
    depth_variance: np.ndarray | None = None
    semantic_epistemic: np.ndarray | None = None
    depth_epistemic: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    normals: np.ndarray | None = None
    edges: np.ndarray | None = None
    human_parts: np.ndarray | None = None
    saliency: np.ndarray | None = None
    domain_distance: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        own = (self.normals, self.edges, self.human_parts, self.saliency)
        for value in (self.labels, self.depth, *own, *self.others.values()):
            if value is not None:
                return value.shape[0], value.shape[1]
        raise ValueError("an empty prediction has no size")

    @property
    def depth_std(self) -> np.ndarray | None:
        """float32 `(H, W)`, standard deviation of the depth in metres."""
        return None if self.depth_variance is None else np.sqrt(self.depth_variance)

    def with_depth_std_up_to(self, limit: float) -> Prediction:
        """The same, but for depth whose standard deviation is above `limit` metres: NaN in all maps
        of depth. Without `depth_variance` nothing is known to be."""
        if self.depth_variance is None:
            return self
        uncertain = self.depth_variance > limit**2
        kept = {
            name: np.where(uncertain, np.float32(np.nan), value)
            for name in DEPTH_MAPS
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **kept)
