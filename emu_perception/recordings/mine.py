"""The frames of a recording most worth labelling: uncertain, and different from one another.

Uncertainty alone picks the same scene again and again; distance alone picks what the model knows.
The choice is greedy: the next frame has the largest product of its score and its distance to the
nearest frame chosen so far (farthest point, Gonzalez 1985; as core set of active learning, Sener
and Savarese, ICLR 2018, arXiv 1708.00489), weighted by the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emu_perception.inference.batch import Request, predict_each
from emu_perception.inference.predictor import Predictor
from emu_perception.messages.topics import Maps, Style
from emu_perception.prediction import Prediction
from emu_perception.recordings.recording import ImageDecoder, RecordedImage

CANDIDATES = 2048
"""Frames kept to choose from: above it, neighbours in time compete for a place."""
PREFERRED = {
    "semantic": ("semantic_epistemic", "semantic_entropy"),
    "depth": ("depth_epistemic", "depth_variance"),
}
"""By task, the maps that may tell how much a label would teach, the best first."""
MAP_NAMES = {
    "semantic_entropy": "semantic_uncertainty",
    "depth_epistemic": "depth_epistemic_std",
    "depth_variance": "depth_std",
}
"""`Maps` that are called otherwise than the `Prediction` field they are made of."""


@dataclass(frozen=True)
class Candidate:
    """A frame that may be chosen."""

    index: int
    stamp_ns: int
    uncertainty: dict[str, float]
    """Means by name: `semantic_…` as fractions of ln C, `relative_depth_…` of the depth."""
    feature: np.ndarray
    """`(C,)` float32."""


class CandidatePool:
    """Frames to choose from, and the mean uncertainties of all; memory does not grow with them.

    Once there are too many, only the most uncertain of each stretch of time stays, and stretches
    double in length whenever that is not enough.
    """

    def __init__(self, capacity: int = CANDIDATES) -> None:
        self._capacity = capacity
        self._stretch_ns = 1
        self._kept: dict[int, Candidate] = {}
        self._sums: dict[str, float] = {}
        self.frames = 0

    def add(self, candidate: Candidate) -> None:
        """One more frame."""
        self.frames += 1
        for name, value in candidate.uncertainty.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._keep(candidate)
        while len(self._kept) > self._capacity:
            self._stretch_ns *= 2
            kept, self._kept = self._kept, {}
            for each in kept.values():
                self._keep(each)

    def _keep(self, candidate: Candidate) -> None:
        stretch = candidate.stamp_ns // self._stretch_ns
        kept = self._kept.get(stretch)
        if kept is None or self.score(candidate) > self.score(kept):
            self._kept[stretch] = candidate

    def score(self, candidate: Candidate) -> float:
        """Mean over the tasks of uncertainty over the recording's mean: 1 is an average frame."""
        ratios = [
            value * self.frames / self._sums[name] if self._sums[name] > 0 else 0.0
            for name, value in candidate.uncertainty.items()
        ]
        return float(np.mean(ratios))

    def choose(self, count: int, min_gap: float) -> list[Candidate]:
        """Up to `count` frames, the best first, any two at least `min_gap` seconds apart."""
        kept = sorted(self._kept.values(), key=lambda c: c.index)
        if not kept:
            return []
        order = choose(
            np.array([self.score(c) for c in kept]),
            np.stack([c.feature for c in kept]),
            np.array([c.stamp_ns for c in kept], np.int64),
            count,
            round(min_gap * 1e9),
        )
        return [kept[i] for i in order]


def choose(
    scores: np.ndarray, features: np.ndarray, stamps_ns: np.ndarray, count: int, min_gap_ns: int
) -> list[int]:
    """Greedy farthest points, weighted by score.

    Args:
        scores: `(N,)`, not negative.
        features: `(N, C)`; each channel is brought to unit variance first.
        stamps_ns: `(N,)` integers.
        count: how many, at most.
        min_gap_ns: that any two must lie apart.

    Returns:
        Indices in the order of their choice: the largest score first.
    """
    features = features.astype(np.float64)
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)
    free = np.ones(len(scores), bool)
    nearest = np.full(len(scores), np.inf)
    chosen: list[int] = []
    while len(chosen) < count and free.any():
        worth = scores * nearest if chosen else scores
        # Of frames that look alike, the more uncertain one.
        best = int(np.lexsort((scores, np.where(free, worth, -1.0), free))[-1])
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(features - features[best], axis=1))
        free &= np.abs(stamps_ns - stamps_ns[best]) >= max(min_gap_ns, 0)
        free[best] = False
    return chosen


def scoring_maps(predictor: Predictor) -> dict[str, str]:
    """By task, the `Prediction` field that frames are scored by.

    Raises:
        ValueError: the model predicts no uncertainty.
    """
    found = {}
    for task, names in PREFERRED.items():
        for name in names:
            if name in predictor.available_maps:
                found[task] = name
                break
    if not found:
        raise ValueError(f"{predictor.path.name} predicts no uncertainty to choose frames by")
    return found


def predict_maps(predictor: Predictor, recorded: RecordedImage) -> Maps:
    """Labels and the maps that frames are scored by."""
    asked = _request(predictor, recorded)
    return _maps(
        predictor, recorded, predictor.predict(asked.image, asked.intrinsics, maps=asked.maps)
    )


def _request(predictor: Predictor, recorded: RecordedImage) -> Request:
    wanted = set(scoring_maps(predictor).values()) | {"labels", "depth"}
    intrinsics = recorded.camera.intrinsics if recorded.camera else None
    return Request(recorded.image, intrinsics, wanted & predictor.available_maps)


def _maps(predictor: Predictor, recorded: RecordedImage, prediction: Prediction) -> Maps:
    return Maps(prediction, recorded.image, predictor.label_set, Style())


def uncertainty_maps(maps: Maps, predictor: Predictor) -> dict[str, np.ndarray]:
    """Maps `(H, W)` float32 by their name in `Maps`, NaN where there is no depth."""
    names = [MAP_NAMES.get(name, name) for name in scoring_maps(predictor).values()]
    return {name: getattr(maps, name) for name in names}


def _means(maps: Maps, predictor: Predictor) -> dict[str, float]:
    means = {}
    for name, values in uncertainty_maps(maps, predictor).items():
        if name.startswith("depth"):
            # Distant pixels are uncertain in metres; fractions of the depth can be compared.
            name, values = f"relative_{name}", values / maps.depth
        valid = values[np.isfinite(values)]
        means[name] = float(valid.mean()) if valid.size else 0.0
    return means


def score_frames(
    decoder: ImageDecoder,
    predictor: Predictor,
    progress: Callable[[int], None] = lambda done: None,
) -> CandidatePool:
    """Predict every image of a recording and keep what the choice needs."""
    pool = CandidatePool()

    def request(recorded: RecordedImage) -> Request:
        return _request(predictor, recorded)

    for answer in predict_each(predictor, decoder.images(), request):
        recorded = answer.item
        means = _means(_maps(predictor, recorded, answer.prediction), predictor)
        # Any camera serves to compare images.
        feature = predictor.features(recorded.image)
        if feature is None:
            raise ValueError(f"{predictor.path.name} has no encoder to compare images by")
        pool.add(Candidate(recorded.index, recorded.stamp_ns, means, feature))
        progress(decoder.taken)
    return pool


def chosen_images(
    decoder: ImageDecoder, chosen: Sequence[Candidate]
) -> Iterator[tuple[Candidate, RecordedImage]]:
    """The chosen frames' images, from a second reading of the recording."""
    wanted: dict[int, Any] = {candidate.index: candidate for candidate in chosen}
    for recorded in decoder.images():
        if recorded.index in wanted:
            yield wanted.pop(recorded.index), recorded
        if not wanted:
            return
