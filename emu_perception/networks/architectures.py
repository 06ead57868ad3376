"""Registry of architectures by name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn as nn

from emu_perception.networks.densemtl import DenseMTL
from emu_perception.networks.dilated_aspp import DilatedASPP
from emu_perception.networks.ensembles import DeepEnsemble, DeepSubEnsemble, MonteCarloDropout
from emu_perception.networks.mtan import MTAN
from emu_perception.networks.padnet import PADNet
from emu_perception.networks.segdepthformer import SegDepthFormer
from emu_perception.networks.segnet import SegNet
from emu_perception.networks.xtasc import XTasCNet

Builder = Callable[..., nn.Module]
_BUILDERS: dict[str, Builder] = {}
WITH_MEMBERS = ("deep_ensemble", "deep_sub_ensemble", "monte_carlo_dropout")
"""Architectures that are several networks, or several passes of one."""


def register_architecture(name: str) -> Callable[[Builder], Builder]:
    """Decorator: make a builder known to `build_network` under a name."""

    def register(builder: Builder) -> Builder:
        _BUILDERS[name] = builder
        return builder

    return register


def architectures() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_BUILDERS))


def build_network(architecture: str, **arguments: object) -> nn.Module:
    """An untrained network of a registered architecture.

    Raises:
        ValueError: the name is unknown, or the arguments do not suit the architecture.
    """
    if architecture not in _BUILDERS:
        raise ValueError(
            f"unknown architecture '{architecture}'; known: {', '.join(sorted(_BUILDERS))}"
        )
    try:
        return _BUILDERS[architecture](**arguments)
    except TypeError as error:
        raise ValueError(f"architecture '{architecture}': {error}") from error


def build_ensemble(
    member: str = "segdepthformer", members: int = 10, **arguments: object
) -> DeepEnsemble:
    """A Deep Ensemble of untrained networks of one architecture, given its arguments.

    Raises:
        ValueError: the members have members themselves.
    """
    if member in WITH_MEMBERS:
        raise ValueError(f"the members of an ensemble are single networks, not '{member}'")
    return DeepEnsemble([build_network(member, **arguments) for _ in range(members)])


register_architecture("segdepthformer")(SegDepthFormer)
register_architecture("densemtl")(DenseMTL)
register_architecture("padnet")(PADNet)
register_architecture("deep_ensemble")(build_ensemble)
register_architecture("deep_sub_ensemble")(DeepSubEnsemble)
register_architecture("monte_carlo_dropout")(MonteCarloDropout)
register_architecture("xtasc")(XTasCNet)
register_architecture("segnet")(SegNet)
register_architecture("mtan")(MTAN)
register_architecture("dilated_aspp")(DilatedASPP)
