"""Which Lightning module trains which architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch.nn as nn

from emu_perception.inference.methods import load_models
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.segdepthformer import SegDepthFormer
from emu_perception.training.config import TrainConfig
from emu_perception.training.distillation import DistillationModule
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.multitask.adaptation import AdversarialModule
from emu_perception.training.multitask.module import MultiTaskModule
from emu_perception.training.multitask.partial import PartialModule, PartialSupervisedModule
from emu_perception.training.multitask.self_supervised import SelfSupervisedModule
from emu_perception.training.multitask.transfer import TransferModule
from emu_perception.training.settings import expand
from emu_perception.training.sub_ensemble import SubEnsembleModule
from emu_perception.training.targets import Teacher

ModuleBuilder: TypeAlias = Callable[[TrainConfig, ModelSpec, nn.Module], SupervisedModule]
_BUILDERS: dict[str, ModuleBuilder] = {}


def register_module(architecture: str, builder: ModuleBuilder) -> None:
    """Make a module known as the one that trains an architecture."""
    _BUILDERS[architecture] = builder


def build_module(config: TrainConfig, spec: ModelSpec, network: nn.Module) -> SupervisedModule:
    """The module of a run: that of the architecture, or a student's where there is a teacher.

    Raises:
        ValueError: nothing trains this architecture, or teacher and student do not suit.
    """
    if config.distillation is not None:
        if config.multitask.partial is not None:
            raise ValueError("a student learns from its teacher: leave out multitask.partial")
        teacher = load_models([expand(path) for path in config.distillation.teacher])
        return DistillationModule(
            config, spec, network, Teacher(teacher, config.distillation.jitter)
        )
    if spec.architecture not in _BUILDERS:
        raise ValueError(
            f"the architecture '{spec.architecture}' is not trained as such; those that are: "
            f"{', '.join(sorted(_BUILDERS))}"
        )
    if config.multitask.partial is not None:
        if isinstance(network, SegDepthFormer):
            return PartialSupervisedModule(config, spec, network)
        if isinstance(network, MultiTaskNetwork):
            return PartialModule(config, spec, network)
        raise ValueError(f"multitask.partial does not train the architecture '{spec.architecture}'")
    if config.multitask.adaptation is not None:
        return AdversarialModule(config, spec, network)
    if config.multitask.self_supervision is not None:
        return SelfSupervisedModule(config, spec, network)
    return _BUILDERS[spec.architecture](config, spec, network)


register_module("segdepthformer", SupervisedModule)
register_module("deep_sub_ensemble", SubEnsembleModule)
register_module("xtasc", TransferModule)
for _architecture in ("densemtl", "padnet", "segnet", "mtan", "dilated_aspp"):
    register_module(_architecture, MultiTaskModule)
