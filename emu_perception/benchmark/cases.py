"""Cases to measure: a network, how it is run, and the size of the image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emu_perception.inference.engines.base import DEPLOYED, choose_precision
from emu_perception.inference.model_file import DeployedModel, LoadedModel, load_model, open_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set

LABELS = "nyuv2_40"
"""Its 40 classes are those of networks that are measured with random weights."""
BACKBONES = tuple(f"mit_b{size}" for size in range(6))
ENSEMBLES = ("deep_ensemble", "deep_sub_ensemble")


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    model: str
    """`mit_b0` … `mit_b5` for a SegDepthFormer with random weights and 40 classes, or a model file
    or the name of a shipped one. What a network computes depends on its weights, its time does not.
    """
    size: tuple[int, int]
    """Height and width of the image, of all maps and, for random weights, of the network's input.
    """
    device: str = "cpu"
    precision: str = "fp32"
    engine: str = "auto"
    architecture: str = "segdepthformer"
    members: int = 1

    @property
    def is_random(self) -> bool:
        """Whether the weights are random, so that the peer can be built alike."""
        return self.model in BACKBONES

    @property
    def name(self) -> str:
        """Name of the network."""
        if self.members == 1:
            return Path(self.model).stem if not self.is_random else self.model
        return f"{self.model}, {self.architecture.replace('_', ' ')} of {self.members}"

    def ensemble(self, architecture: str, members: int) -> Case:
        """The same with members."""
        return replace(self, architecture=architecture, members=members)

    def load(self) -> LoadedModel | DeployedModel:
        """The model, on the CPU; of a shipped name the file that its engine runs.

        Raises:
            ModelFileError: there is no such model file, or it is damaged.
        """
        if not self.is_random:
            on_weights = self.engine not in ("auto", *DEPLOYED)
            return load_model(self.model) if on_weights else open_model(self.model)
        arguments = {} if self.members == 1 else {"members": self.members}
        spec = ModelSpec(
            architecture=self.architecture,
            backbone=self.model,
            tasks=("semantic", "depth"),
            arguments=arguments,
            label_set=load_label_set(LABELS),
            input_size=self.size,
            depth_range=(0.1, 10.0),
        )
        import torch

        torch.manual_seed(0)  # the same in every run, so that what is compiled can be kept
        network = spec.build()
        network.initialise_depth_mean(3.0)  # type: ignore[operator]
        return LoadedModel(network.eval(), spec, Path(self.model))


def make_cases(
    models: Sequence[str],
    *,
    engines: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    precisions: Sequence[str],
    device: str,
    members: int | None = None,
) -> list[Case]:
    """Every combination; with `members` also of both kinds of ensembles of random weights."""
    cases = []
    for model, size in itertools.product(models, sizes):
        for precision, engine in itertools.product(precisions, engines):
            case = Case(model, size, device, choose_precision(precision, device), engine)
            cases.append(case)
            if members and case.is_random:
                cases += [case.ensemble(kind, members) for kind in ENSEMBLES]
    return cases


def example_image(size: tuple[int, int]) -> np.ndarray:
    """Noise, uint8 RGB `(height, width, 3)`."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
