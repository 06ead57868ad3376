"""Start training from a trained model, also with other classes or tasks.

Every tensor that fits is kept. Output channels of classes are matched by class name. The rest keeps
its initialisation and is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from emu_perception.inference.model_file import LoadedModel, load_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.pretrained import widen_input

CLASSIFIER = ".predict."
"""Part of the names of the last layer of a semantic decoder."""


@dataclass
class StartReport:
    """Which weights a network took from a trained model."""

    source: Path
    kept: int = 0
    """Tensors that were copied, completely or for the classes in common."""
    total: int = 0
    fresh: list[str] = field(default_factory=list)
    """Tensors that keep their initialisation, with the shapes that did not fit."""
    fresh_classes: list[str] = field(default_factory=list)
    """Classes that the trained model does not have."""
    unused: list[str] = field(default_factory=list)
    """Parts of the trained model that the new network does not have."""

    def lines(self) -> list[str]:
        """Return the report as lines for the terminal."""
        lines = [f"{self.source.name}: {self.kept} of {self.total} tensors are kept"]
        if self.fresh_classes:
            lines.append(f"initialised again: the classes {', '.join(self.fresh_classes)}")
        lines += [f"initialised again: {name}" for name in self.fresh]
        lines += [f"not used: {name}" for name in self.unused]
        return lines


@torch.no_grad()
def start_from(network: nn.Module, spec: ModelSpec, path: Path) -> StartReport:
    """Copy the weights of a trained model into a network where they fit.

    Args:
        network: the new network, initialised; changed in place.
        spec: its description.
        path: model file, or the name of a shipped model.

    Raises:
        ValueError: the model has another architecture or another encoder.
    """
    source = load_model(path)
    given = _fitting_encoder(source, network, spec)
    own: dict[str, torch.Tensor] = dict(network.state_dict())
    report = StartReport(source.path, total=len(own))
    old = source.spec.label_set.names if source.spec.label_set else ()
    new = spec.label_set.names if spec.label_set else ()
    if old and new and "semantic" in spec.tasks and "semantic" in source.spec.tasks:
        report.fresh_classes = [name for name in new if name not in old]
    for name, value in own.items():
        stored = given.get(name)
        if stored is None:
            report.fresh.append(name)
        elif old != new and ".semantic" in name and CLASSIFIER in name:
            _copy_classes(value, stored, old, new)
            report.kept += 1
        elif stored.shape == value.shape:
            value.copy_(stored)
            report.kept += 1
        elif stored.shape[1:] == value.shape[1:] and 1 <= value.shape[0] - stored.shape[0] <= 2:
            value[: len(stored)] = stored  # the last channels are the variance, the epistemic part
            report.kept += 1
        else:
            report.fresh.append(f"{name} {tuple(stored.shape)} -> {tuple(value.shape)}")
    parts = {".".join(name.split(".")[:2]) for name in own}
    report.unused = sorted({".".join(name.split(".")[:2]) for name in given} - parts)
    return report


def _copy_classes(
    value: torch.Tensor, stored: torch.Tensor, old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    """Copy the output channels of the classes in common, and an epistemic channel after them."""
    for index, name in enumerate(new):
        if name in old:
            value[index] = stored[old.index(name)]
    if len(stored) > len(old) and len(value) > len(new):
        value[len(new) :] = stored[len(old) :]


def _fitting_encoder(source: LoadedModel, network: Any, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """The weights of a model whose encoder is that of the new network.

    Raises:
        ValueError: another architecture, or another encoder.
    """
    given = source.network.state_dict()
    prefix = "encoder."
    encoder = {k: v for k, v in given.items() if k.startswith(prefix)}
    own = {k: v for k, v in network.state_dict().items() if k.startswith(prefix)}
    encoder = widen_input(encoder, own)
    shapes = {name: value.shape for name, value in own.items()}
    if source.spec.architecture != spec.architecture or shapes != {
        name: value.shape for name, value in encoder.items()
    }:
        raise ValueError(
            f"{source.path} is {source.spec.architecture} with {source.spec.backbone}, and the "
            f"new model is {spec.architecture} with {spec.backbone}: start from one of the same "
            "kind, or give model.encoder_weights instead of model.start_from"
        )
    return {**given, **encoder}
