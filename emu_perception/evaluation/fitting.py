"""Fit the two numbers that calibrate a model, over a split that is never the one reported on.

Both fits take one image at a time, need constant memory, and merge by addition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emu_perception.prediction import MIN_VARIANCE, UNLABELLED

_LOG_TEMPERATURES = np.linspace(-4, 4, 65) * np.log(2)
_CHUNK = 16384
"""Pixels at a time: keeps the working set in the processor's cache."""


class TemperatureFit:
    """The temperature T that minimises the negative log-likelihood of softmax(logits / T).

    Guo et al. (ICML 2017). The loss is convex in 1/T; the sums of its first and second derivative
    are kept for 65 temperatures from 1/16 to 16, and T is where the first, interpolated by cubics,
    crosses zero.
    """

    def __init__(self, pixels_per_image: int | None = 4096, seed: int = 0) -> None:
        """
        Args:
            pixels_per_image: labelled pixels drawn at random from each image; None takes all.
            seed: of the draws.
        """
        if pixels_per_image is not None and pixels_per_image < 1:
            raise ValueError(f"pixels_per_image must be at least 1, got {pixels_per_image}")
        self.pixels_per_image = pixels_per_image
        self.seed = seed
        self.images = 0
        self.pixels = 0
        self._sums = np.zeros((3, len(_LOG_TEMPERATURES)))
        """Loss, its first and its second derivative by 1/T, for each temperature."""

    def update(
        self,
        labels: np.ndarray,
        *,
        probabilities: np.ndarray | None = None,
        logits: np.ndarray | None = None,
    ) -> None:
        """Add one image.

        Args:
            labels: `(H, W)` integers, 255 = unlabelled.
            probabilities: `(C, H, W)`; their logarithms serve as logits, which differ from the
                network's own by a constant per pixel that softmax ignores.
            logits: `(C, H, W)`, instead of probabilities.

        Raises:
            ValueError: not exactly one of the two was given, or the sizes differ.
        """
        scores = logits if probabilities is None else probabilities
        if scores is None or (logits is not None and probabilities is not None):
            raise ValueError("give either probabilities or logits")
        if scores.shape[1:] != labels.shape:
            raise ValueError(
                f"labels have shape {labels.shape}, the scores of each class {scores.shape[1:]}"
            )
        chosen = np.flatnonzero(labels != UNLABELLED)
        if self.pixels_per_image is not None and len(chosen) > self.pixels_per_image:
            generator = np.random.default_rng((self.seed, self.images))
            chosen = np.sort(generator.choice(chosen, self.pixels_per_image, replace=False))
        truth: np.ndarray = labels.reshape(-1).take(chosen).astype(np.intp)
        flat = scores.reshape(len(scores), -1)
        if truth.size and truth.max() >= len(scores):
            raise ValueError(f"label {truth.max()} among {len(scores)} classes")
        for start in range(0, len(chosen), _CHUNK):
            part = slice(start, start + _CHUNK)
            values: np.ndarray = flat.take(chosen[part], axis=1).astype(np.float32)
            if probabilities is not None:
                values = np.log(np.maximum(values, np.float32(1e-30)))
            self._add(values, truth[part])
        self.images += 1
        self.pixels += len(chosen)

    def _add(self, logits: np.ndarray, truth: np.ndarray) -> None:
        """Add `(C, N)` logits of pixels with `(N,)` true classes."""
        logits = logits - logits.max(axis=0)
        of_truth = logits[truth, np.arange(len(truth))]
        for i, inverse in enumerate(np.exp(-_LOG_TEMPERATURES).astype(np.float32)):
            powers = np.exp(logits * inverse)
            norm = powers.sum(axis=0)
            weighted = powers * logits
            mean = weighted.sum(axis=0) / norm
            mean_square = np.einsum("cn,cn->n", weighted, logits) / norm
            terms = (
                np.log(norm) - inverse * of_truth,
                mean - of_truth,
                mean_square - mean * mean,
            )
            self._sums[:, i] += [term.sum(dtype=np.float64) for term in terms]

    def merge(self, other: TemperatureFit) -> None:
        """Add what another fit has seen."""
        self._sums += other._sums
        self.images += other.images
        self.pixels += other.pixels

    @classmethod
    def balanced(cls, fits: Sequence[TemperatureFit]) -> TemperatureFit:
        """One fit of several, to each of which the same weight is given."""
        found = cls()
        for fit in fits:
            if not fit.pixels:
                raise ValueError("no labelled pixel to fit a temperature to")
            found._sums += fit._sums / fit.pixels
            found.images += fit.images
        found.pixels = len(fits)
        return found

    def result(self) -> float:
        """The temperature, within [1/16, 16] (an end if the loss still falls there).

        Raises:
            ValueError: no labelled pixel was seen.
        """
        if not self.pixels:
            raise ValueError("no labelled pixel to fit a temperature to")
        inverse, slope = np.exp(-_LOG_TEMPERATURES[::-1]), self._sums[1, ::-1]
        if slope[0] >= 0:
            return float(1 / inverse[0])
        if slope[-1] <= 0:
            return float(1 / inverse[-1])
        left = int(np.flatnonzero(slope < 0)[-1])
        width = inverse[left + 1] - inverse[left]
        start, end = (float(slope[left + i]) for i in (0, 1))
        start_slope, end_slope = (float(self._sums[2, ::-1][left + i] * width) for i in (0, 1))
        t = _root_of_cubic(start, end, start_slope, end_slope)
        return float(1 / (inverse[left] + t * width))

    def loss(self) -> float:
        """Mean negative log-likelihood at temperature 1, in nats."""
        middle = len(_LOG_TEMPERATURES) // 2
        return float(self._sums[0, middle] / self.pixels)


def _root_of_cubic(start: float, end: float, start_slope: float, end_slope: float) -> float:
    """Find the zero of the Hermite cubic on [0, 1] from `start` < 0 to `end` >= 0 by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        value = (
            (1 + 2 * t) * (1 - t) ** 2 * start
            + t * (1 - t) ** 2 * start_slope
            + t**2 * (3 - 2 * t) * end
            + t**2 * (t - 1) * end_slope
        )
        low, high = (t, high) if value < 0 else (low, t)
    return (low + high) / 2


class DepthVarianceScaleFit:
    """The factor s on the predicted variance that minimises the Gaussian negative log-likelihood.

    Setting the derivative of ½·ln(s·σ²) + e²/(2·s·σ²) to zero gives s = mean(e²/σ²) (Laves et al.,
    MIDL 2020).
    """

    def __init__(self, depth_range: tuple[float, float]) -> None:
        """
        Args:
            depth_range: metres; pixels whose true depth lies outside are left out.
        """
        self.depth_range = depth_range
        self.pixels = 0
        self._total = 0.0

    def update(self, depth: np.ndarray, variance: np.ndarray, truth: np.ndarray) -> None:
        """Add one image.

        Args:
            depth, variance: `(H, W)` predictions in m and m²; NaN pixels are left out.
            truth: `(H, W)` metres.

        Raises:
            ValueError: the sizes differ.
        """
        if not depth.shape == variance.shape == truth.shape:
            raise ValueError(
                f"depth, variance and truth differ in shape: {depth.shape}, {variance.shape}, "
                f"{truth.shape}"
            )
        low, high = self.depth_range
        valid = (truth > low) & (truth < high) & np.isfinite(depth) & np.isfinite(variance)
        error = (depth[valid] - truth[valid]).astype(np.float64)
        self._total += float((error**2 / np.maximum(variance[valid], MIN_VARIANCE)).sum())
        self.pixels += error.size

    def merge(self, other: DepthVarianceScaleFit) -> None:
        """Add what another fit has seen."""
        self._total += other._total
        self.pixels += other.pixels

    def result(self) -> float:
        """The scale.

        Raises:
            ValueError: no pixel had both a true and a predicted depth, or all were exact.
        """
        if not self._total:
            raise ValueError("no pixel with an error to fit the variance's scale to")
        return self._total / self.pixels
