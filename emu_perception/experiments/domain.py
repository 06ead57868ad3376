"""The training domain of a model: its statistics, and how well scores detect other domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from emu_perception.data.dataset import Dataset
from emu_perception.data.sample import Sample
from emu_perception.inference.domain import (
    PERCENTILE,
    DomainDistance,
    DomainStatistics,
    fit_domain,
)
from emu_perception.inference.engines.activation import NetworkWithFeatures, camera_tensor, prepare
from emu_perception.inference.engines.base import fold
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.predictor import network_size
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import Strict
from emu_perception.uncertainty import entropy

SHRINKAGE = 0.1
"""Weight of the diagonal in the full covariance."""
NEIGHBOURS = 5
"""k of the k-nearest-neighbour distance."""
Progress = Callable[[int, int], None]


class DomainConfig(Strict):
    """Images of a model's domain, and of others."""

    train: list[DatasetConfig] = Field(min_length=1)
    """Training images, from which the statistics follow."""
    held_out: list[DatasetConfig] = Field(min_length=1)
    """Images of the domain, from other places, on which the threshold is chosen."""
    inside: list[DatasetConfig] = Field(default_factory=list)
    """Images of the domain to report on, in neither of the two."""
    outside: list[DatasetConfig] = Field(default_factory=list)
    """Images of other domains to report on."""
    percentile: float = Field(PERCENTILE, gt=0, le=100)
    """Percentage of the held-out images below the threshold."""


class Observer:
    """Encoder features and classes of each image, by PyTorch on the CPU.

    Args:
        model: its network is folded and stays as it is.

    Raises:
        ValueError: the network has no encoder.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._spec = model.spec
        self._network = NetworkWithFeatures(fold(model.network), model.spec).eval()
        if not self._network.has_features:
            raise ValueError(f"{model.path}: the network has no encoder")

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> tuple[np.ndarray, dict[str, float]]:
        """An image's features `(E,)`, and scores from its classes that rise with the distance.

        Returns:
            Features, and by name: minus the mean log-sum-exp of the logits (energy, Liu et al.,
            NeurIPS 2020), minus the mean largest logit (Hendrycks et al., ICML 2022), the mean
            entropy in nats, and 1 - the mean confidence.
        """
        height, width = sample.size
        size = network_size(self._spec, height, width)
        camera = None
        if self._spec.camera is not None and self._spec.rays:
            seen = sample.intrinsics or self._spec.camera.assume(width, height)
            camera = camera_tensor(seen.resized(size[1], size[0]))
        pixels = prepare(np.ascontiguousarray(sample.image), size, torch.device("cpu"))
        *raw, features = self._network(pixels, camera)
        scores = self._scores(raw[0]) if "semantic" in self._spec.tasks else {}
        return features.mean(0).numpy(), scores

    def _scores(self, logits: Tensor) -> dict[str, float]:
        assert self._spec.label_set is not None
        members = logits.flatten(0, -4)[:, : len(self._spec.label_set)]
        mean = members.mean(0) / self._spec.calibration.temperature
        probabilities = torch.softmax(mean, 0)
        return {
            "energy": -float(torch.logsumexp(mean, 0).mean()),
            "max_logit": -float(mean.amax(0).mean()),
            "entropy": float(entropy(probabilities, 0).mean()),
            "confidence": 1 - float(probabilities.amax(0).mean()),
        }


def fit(
    model: LoadedModel, config: DomainConfig, progress: Progress | None = None
) -> tuple[LoadedModel, DomainStatistics]:
    """The model with the statistics of its training domain.

    Raises:
        ValueError: the network has no encoder, or the data sets have too few images.
    """
    observe = Observer(model)
    training = [_features(observe, data, progress) for data in config.train]
    held_out = [_features(observe, data, progress) for data in config.held_out]
    statistics = fit_domain(
        np.concatenate(training),
        np.concatenate(held_out),
        percentile=config.percentile,
        fitted_on=_words(config.train, training),
        held_out_on=_words(config.held_out, held_out),
    )
    spec = model.spec.model_copy(update={"domain": statistics})
    return model.described(spec), statistics


def compare(
    model: LoadedModel, config: DomainConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """How well scores separate the data sets in `outside` from those in `inside`.

    Returns:
        `images`: for each data set, their number, the median distance and the fraction above 1;
        `auroc`: by score, then by data set, against all data sets of the other group; `all`.

    Raises:
        ValueError: the model has no statistics yet, or there is nothing to compare.
    """
    if model.spec.domain is None:
        raise ValueError(f"{model.path} has no domain statistics: run `emu domain fit` first")
    if not config.inside or not config.outside:
        raise ValueError("a comparison needs data sets in `inside` and in `outside`")
    observe, distance = Observer(model), DomainDistance(model.spec.domain)
    bank = np.concatenate([_features(observe, data, progress) for data in config.train])
    nearest, mahalanobis = NearestNeighbours(bank), Mahalanobis(bank)
    groups: dict[str, dict[str, dict[str, np.ndarray]]] = {"inside": {}, "outside": {}}
    images: dict[str, Any] = {}
    for group, listed in (("inside", config.inside), ("outside", config.outside)):
        for data in listed:
            features, others = _observed(observe, data, progress)
            scores = {
                "distance": distance(features),
                "neighbours": nearest(features),
                "mahalanobis": mahalanobis(features),
                **others,
            }
            groups[group][data.title] = scores
            images[data.title] = {
                "group": group,
                "count": len(features),
                "median_distance": float(np.median(scores["distance"])),
                "above_threshold": float(np.mean(scores["distance"] > 1)),
            }
    names = list(next(iter(groups["inside"].values())))
    return {"images": images, "auroc": {name: _aurocs(groups, name) for name in names}}


def _aurocs(groups: dict[str, dict[str, dict[str, np.ndarray]]], score: str) -> dict[str, float]:
    values = {
        group: {name: scores[score] for name, scores in sets.items()}
        for group, sets in groups.items()
    }
    inside, outside = (np.concatenate([*sets.values()]) for sets in values.values())
    return {
        **{name: auroc(each, outside) for name, each in values["inside"].items()},
        **{name: auroc(inside, each) for name, each in values["outside"].items()},
        "all": auroc(inside, outside),
    }


class NearestNeighbours:
    """Distance to the k-th nearest training image, features standardised (Sun et al., ICML 2022).

    Args:
        bank: `(N, E)` features of the training images.
    """

    def __init__(self, bank: np.ndarray) -> None:
        self._mean, self._deviation = bank.mean(0), bank.std(0) + 1e-6
        self._bank = (bank - self._mean) / self._deviation

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """`(M, E)` to distances `(M,)`."""
        k = min(NEIGHBOURS, len(self._bank))
        standardised = (features - self._mean) / self._deviation
        return np.array(
            [np.sort(np.linalg.norm(self._bank - x, axis=1))[k - 1] for x in standardised]
        )


class Mahalanobis:
    """Distance with the full covariance (Lee et al., NeurIPS 2018), standardised and shrunk towards
    its diagonal.

    Args:
        bank: `(N, E)` features of the training images.
    """

    def __init__(self, bank: np.ndarray) -> None:
        self._mean, self._deviation = bank.mean(0), bank.std(0) + 1e-6
        correlation = np.cov((bank - self._mean) / self._deviation, rowvar=False)
        shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(len(correlation))
        self._factor = np.linalg.cholesky(np.linalg.inv(shrunk))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """`(M, E)` to distances `(M,)`."""
        standardised = (features - self._mean) / self._deviation
        return np.linalg.norm(standardised @ self._factor, axis=1)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that an outside image scores higher than an inside one, ties counting half."""
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, "left")
    ties = np.searchsorted(ordered, outside, "right") - below
    return float((below + ties / 2).mean() / len(inside))


def _samples(dataset: Dataset) -> Iterator[Sample]:
    return (dataset[index] for index in range(len(dataset)))


def _observed(
    observe: Observer, data: DatasetConfig, progress: Progress | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features `(N, E)` and scores `(N,)` of a data set."""
    dataset = open_dataset(data)
    features, scores = [], []
    for index, sample in enumerate(_samples(dataset)):
        vector, found = observe(sample)
        features.append(vector)
        scores.append(found)
        if progress is not None:
            progress(index + 1, len(dataset))
    names = scores[0] if scores else {}
    return np.stack(features), {n: np.array([each[n] for each in scores]) for n in names}


def _features(observe: Observer, data: DatasetConfig, progress: Progress | None) -> np.ndarray:
    return _observed(observe, data, progress)[0]


def _words(configs: list[DatasetConfig], features: list[np.ndarray]) -> str:
    parts = zip(configs, features, strict=True)
    return ", ".join(f"{data.title} ({len(part)} images)" for data, part in parts)
