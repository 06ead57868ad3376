"""Score predictions against truth in coarser classes than the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from emu_perception.labels import LabelSet, class_mapping
from emu_perception.prediction import UNLABELLED, Prediction


@dataclass(frozen=True)
class Merging:
    """Predictions in the classes of a model as predictions in coarser classes."""

    label_set: LabelSet
    """The coarser classes."""
    classes: tuple[tuple[int, ...], ...]
    """Ids of the model's classes that each of them covers."""

    @classmethod
    def of(cls, model: LabelSet | None, data: LabelSet | None) -> Merging | None:
        """The merging of a model's classes into a data set's; None unless `data.finer` names the
        model's label set."""
        if model is None or data is None or model.names == data.names:
            return None
        if model.name not in data.finer:
            return None
        covered = class_mapping(data, model)
        return cls(
            data, tuple(tuple(map(model.index, covered.get(name, ()))) for name in data.names)
        )

    def merged(self, prediction: Prediction) -> Prediction:
        """The prediction with labels, confidence, entropy and probabilities of the coarser classes.

        Needs `Prediction.probabilities`: those of the covered classes are added up. What the model
        gives to classes that no coarse class covers is left out, so sums can be below 1. Epistemic
        maps stay as they are.
        """
        if prediction.probabilities is None:
            return prediction
        rows = [
            prediction.probabilities[list(ids)].sum(0)
            if ids
            else np.zeros(prediction.probabilities.shape[1:], np.float32)
            for ids in self.classes
        ]
        merged = np.stack(rows)
        labels = merged.argmax(0).astype(np.uint8)
        confidence = np.minimum(merged.max(0), 1).astype(np.float32)
        if prediction.labels is not None:
            rejected = prediction.labels == UNLABELLED
            labels[rejected], confidence[rejected] = UNLABELLED, 0
        entropy = -(merged * np.log(np.maximum(merged, 1e-12))).sum(0).astype(np.float32)
        return replace(
            prediction,
            labels=labels,
            confidence=confidence,
            semantic_entropy=np.maximum(entropy, 0),
            probabilities=merged,
        )


def resolved(
    truth: np.ndarray,
    predicted: np.ndarray | None,
    groups: Sequence[tuple[int, ...]],
    classes: int,
) -> np.ndarray:
    """Truth with coarse labels as single classes: the predicted one where it is covered.

    Args:
        truth: `(H, W)` uint8; the id `classes` + k stands for one of `groups[k]`.
        predicted: `(H, W)` uint8; None: every coarse label becomes the first class it covers.
        groups: of `Dataset.label_groups`.
        classes: number of classes.

    Returns:
        `(H, W)` uint8 without coarse labels; one whose classes exclude the prediction becomes the
        first class that it covers.
    """
    found = truth.copy()
    for number, group in enumerate(groups):
        pixels = truth == classes + number
        found[pixels] = group[0]
        if predicted is not None:
            agree = pixels & np.isin(predicted, group)
            found[agree] = predicted[agree]
    return found
