import numpy as np
import pytest
from feeding import fed

from emu_perception.labels import LabelSet
from emu_perception.prediction import Prediction

CLASSES = 5


@pytest.fixture(scope="session")
def label_set():
    colors = tuple((i, i, i) for i in range(CLASSES))
    return LabelSet("five", tuple("abcde"), colors)


@pytest.fixture(scope="session")
def make_frame():
    """A random frame whose uncertainties know something about its errors."""

    def make(seed, height=24, width=32, *, void=0.1, invalid=0.0, probabilities=True):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, CLASSES, (height // 4, width // 4))
        labels = np.kron(blocks, np.ones((4, 4))).astype(np.uint8)
        logits = 2.5 * rng.normal(size=(CLASSES, height, width)) * rng.random((height, width))
        np.put_along_axis(
            logits, labels[None].astype(int), rng.normal(3, 2, (1, height, width)), axis=0
        )
        p = np.exp(logits - logits.max(axis=0))
        p = (p / p.sum(axis=0)).astype(np.float32)
        depth = rng.uniform(1, 30, (height, width)).astype(np.float32)
        variance = (rng.gamma(1, 0.1, (height, width)) * depth).astype(np.float32) ** 2 + 1e-4
        noise = rng.normal(size=depth.shape) * np.sqrt(variance)
        mean = np.maximum(depth + noise, 0.05).astype(np.float32)
        missing = rng.random(mean.shape) < invalid
        mean[missing] = np.nan
        variance[missing] = np.nan
        prediction = Prediction(
            labels=p.argmax(axis=0).astype(np.uint8),
            confidence=p.max(axis=0),
            semantic_entropy=-(p * np.log(p)).sum(axis=0),
            depth=mean,
            depth_variance=variance.astype(np.float32),
            probabilities=p if probabilities else None,
        )
        labels[rng.random(labels.shape) < void] = 255
        depth[rng.random(depth.shape) < void] = 0
        return prediction, labels, depth

    return make


@pytest.fixture(scope="module")
def frames(make_frame):
    return [make_frame(seed, invalid=0.05) for seed in range(6)]


@pytest.fixture(scope="module")
def result(label_set, frames):
    return fed(label_set, frames).result(replicates=50)
