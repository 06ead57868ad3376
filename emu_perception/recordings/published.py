"""Maps as they were published, back as a prediction: what is scored live and from a recording."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from emu_perception.evaluation.semantic import NEEDS
from emu_perception.messages.topics import DEPTH_TOPIC, LABELS_TOPIC
from emu_perception.prediction import Prediction

MAP_TOPICS = {
    LABELS_TOPIC: "labels",
    "semantic/confidence": "confidence",
    "semantic/uncertainty": "semantic_entropy",
    "semantic/epistemic_uncertainty": "semantic_epistemic",
    DEPTH_TOPIC: "depth",
    "depth/uncertainty": "depth_variance",
    "depth/epistemic_uncertainty": "depth_epistemic",
}
"""Published topic -> the field of `Prediction` that it is made of."""
OFFLINE_ONLY = {
    f"semantic.{key}": "offline only: published maps carry no class probabilities"
    for key in NEEDS["likelihood"][1].split()
} | {"seconds_per_frame": "offline only: published maps do not contain their computation time"}
"""Figures that published maps do not allow, and why, for a report's `reasons`."""


def prediction_of(maps: Mapping[str, np.ndarray], classes: int) -> Prediction:
    """A prediction in its own units.

    Args:
        maps: `(H, W)` by relative topic, as published: confidence × 255 as uint8, entropies / ln C,
            deviations in metres.
        classes: C.

    Raises:
        ValueError: there is nothing to score, the sizes differ, or a type is not what is published.
    """
    if not {LABELS_TOPIC, DEPTH_TOPIC} & maps.keys():
        raise ValueError(f"there is neither {LABELS_TOPIC} nor {DEPTH_TOPIC}")
    sizes = {f"{v.shape[1]} x {v.shape[0]}": topic for topic, v in maps.items()}
    if len(sizes) > 1:
        raise ValueError(f"maps differ in size: {', '.join(f'{t} {s}' for s, t in sizes.items())}")
    for topic, values in maps.items():
        expected = np.uint8 if topic in (LABELS_TOPIC, "semantic/confidence") else np.float32
        if values.dtype != expected:
            raise ValueError(f"{topic} is {values.dtype}, expected {np.dtype(expected)}")
    return Prediction(
        **{MAP_TOPICS[topic]: _unpublished(topic, v, classes) for topic, v in maps.items()}
    )


def _unpublished(topic: str, values: np.ndarray, classes: int) -> np.ndarray:
    if topic == "semantic/confidence":
        return values.astype(np.float32) / np.float32(255)
    if topic.startswith("semantic/") and topic != LABELS_TOPIC:
        return values * np.float32(math.log(classes) if classes > 1 else 1.0)
    if topic in ("depth/uncertainty", "depth/epistemic_uncertainty"):
        return np.square(values)
    return values


def missing_maps(maps: Collection[str], expected: Collection[str]) -> str:
    """Names of the topics that did not bring a map, for people; empty if all did."""
    return ", ".join(topic for topic in MAP_TOPICS if topic in expected and topic not in maps)
