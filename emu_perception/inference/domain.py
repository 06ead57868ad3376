"""How far an image is from a model's training domain, from one vector of its encoder.

The vector is the encoder's coarsest feature map averaged over the image. Its distance is that of
Mahalanobis with a diagonal covariance: the length of the standardised vector. With a full one (Lee
et al., NeurIPS 2018) directions of little variance dominate, and streets of an unseen camera become
as far as rooms; `emu domain compare` measures it. NumPy alone.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

PERCENTILE = 99.0
"""Percentage of the held-out images of the domain that are nearer than the alarm's threshold."""
FEWEST = 20
"""Training images that give a mean and a deviation."""


class DomainStatistics(BaseModel):
    """The training domain of a model, as its file holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: str
    """`(E,)` mean of the training images' features: base64 of little-endian float32."""
    deviation: str
    """`(E,)` their standard deviation, likewise."""
    threshold: float = Field(gt=0)
    """Length of the standardised features that is a distance of 1."""
    percentile: float = Field(PERCENTILE, gt=0, le=100)
    """Percentage of the held-out images below the threshold."""
    fitted_on: str = ""
    """The training images, in words."""
    held_out: str = ""
    """The images on which the threshold was chosen, in words."""


class DomainDistance:
    """Distance of features from a training domain.

    Args:
        statistics: of the domain.
    """

    def __init__(self, statistics: DomainStatistics) -> None:
        self.threshold = statistics.threshold
        self._mean, self._deviation = map(_decoded, (statistics.mean, statistics.deviation))

    def __call__(self, features: np.ndarray) -> Any:
        """`(E,)` or `(N, E)` to distances, a number or `(N,)`: 1 = the alarm's threshold.

        Raises:
            ValueError: the features have another length than those of the statistics.
        """
        if features.shape[-1] != len(self._mean):
            raise ValueError(
                f"the domain's statistics are for {len(self._mean)} features, the network has "
                f"{features.shape[-1]}: run `emu domain fit` again"
            )
        standardised = (features - self._mean) / self._deviation
        return np.linalg.norm(standardised, axis=-1) / self.threshold


def fit_domain(
    training: np.ndarray,
    held_out: np.ndarray,
    *,
    percentile: float = PERCENTILE,
    fitted_on: str = "",
    held_out_on: str = "",
) -> DomainStatistics:
    """The statistics of a domain.

    Args:
        training: `(N, E)` features of training images.
        held_out: `(M, E)`, images of the domain from other places than the training images.
        percentile: of the held-out images, those below the threshold.
        fitted_on, held_out_on: the data in words.

    Raises:
        ValueError: fewer than `FEWEST` training images, or no held-out image.
    """
    if len(training) < FEWEST or not len(held_out):
        raise ValueError(
            f"a domain needs {FEWEST} training images and a held-out one, got {len(training)} and "
            f"{len(held_out)}"
        )
    deviation = training.std(0, dtype=np.float64)
    # A feature that never varies is no reason for an infinite distance.
    smallest = max(1e-3 * float(np.median(deviation)), 1e-6)
    found = DomainStatistics(
        mean=_encoded(training.mean(0, dtype=np.float64)),
        deviation=_encoded(np.maximum(deviation, smallest)),
        threshold=1.0,
        percentile=percentile,
        fitted_on=fitted_on,
        held_out=held_out_on,
    )
    threshold = float(np.percentile(DomainDistance(found)(held_out), percentile))
    return found.model_copy(update={"threshold": threshold})


def _encoded(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
