"""The prediction for one image: the type that all packages above the networks use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

DEPTH_MAPS = frozenset({"depth", "depth_variance", "depth_epistemic"})
"""Fields of `Prediction` that are NaN where the depth is."""
UNLABELLED = 255
"""Class id of pixels without a label: void in ground truth, too uncertain in a prediction."""


@dataclass(frozen=True)
class Prediction:
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
        others = (self.normals, self.edges, self.human_parts, self.saliency)
        for value in (self.labels, self.depth, *others):
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
