"""Methods at inference as models: ensembles from several files, sampled dropout from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emu_perception.inference.model_file import LoadedModel, load_model
from emu_perception.inference.model_spec import Calibration
from emu_perception.networks.architectures import WITH_MEMBERS
from emu_perception.networks.ensembles import DeepEnsemble


def load_models(paths: Sequence[str | Path]) -> LoadedModel:
    """One model file as it is, several as a Deep Ensemble.

    Raises:
        ModelFileError: a file is missing or damaged.
        ValueError: the files are not of one kind.
    """
    loaded = [load_model(path) for path in paths]
    return loaded[0] if len(loaded) == 1 else deep_ensemble(loaded)


def deep_ensemble(models: Sequence[LoadedModel]) -> LoadedModel:
    """A Deep Ensemble of networks of one kind.

    The members' own calibrations are left out: an ensemble needs one of its own.

    Raises:
        ValueError: fewer than two, not plain networks, or different from one another.
    """
    if len(models) < 2:
        raise ValueError("an ensemble needs at least two models")
    first = models[0].spec
    for model in models:
        if model.spec.architecture in WITH_MEMBERS:
            raise ValueError(
                f"{model.path} is a '{model.spec.architecture}'; members are single networks"
            )
        for name in (
            "architecture", "backbone", "tasks", "arguments", "label_set", "input_size", "camera",
            "depth_range", "normalization_mean", "normalization_std",
        ):  # fmt: skip
            if getattr(model.spec, name) != getattr(first, name):
                raise ValueError(f"{model.path} and {models[0].path} differ in {name}: no ensemble")
    if first.arguments.get("split_uncertainty"):
        raise ValueError("networks with split uncertainty are students, not members")
    arguments = {k: v for k, v in first.arguments.items() if k != "split_uncertainty"}
    if first.architecture != "segdepthformer":
        arguments["member"] = first.architecture
    spec = first.model_copy(
        update={
            "architecture": "deep_ensemble",
            "arguments": {**arguments, "members": len(models)},
            "calibration": Calibration(),
            "metrics": {},
            "description": f"Deep Ensemble of {len(models)}: {first.description}".rstrip(": "),
        }
    )
    network = spec.build()
    assert isinstance(network, DeepEnsemble)
    for member, model in zip(network.members, models, strict=True):
        member.load_state_dict(model.network.state_dict())
    return LoadedModel(network.eval(), spec, models[0].path)


def monte_carlo_dropout(model: LoadedModel, rate: float, samples: int = 10) -> LoadedModel:
    """The same weights with dropout sampled at inference; train them with the same rate.

    The network's own calibration is left out: it holds without dropout.

    Raises:
        ValueError: the model is not a single network.
    """
    spec = model.spec
    if spec.architecture != "segdepthformer" or spec.arguments.get("split_uncertainty"):
        raise ValueError(f"{model.path}: only single networks can sample their dropout")
    arguments = {k: v for k, v in spec.arguments.items() if k != "split_uncertainty"}
    spec = spec.model_copy(
        update={
            "architecture": "monte_carlo_dropout",
            "arguments": {**arguments, "dropout": rate, "samples": samples},
            "calibration": Calibration(),
            "metrics": {},
        }
    )
    network = spec.build()
    network.load_state_dict(model.network.state_dict())
    return LoadedModel(network.eval(), spec, model.path)


def uncalibrated(model: LoadedModel) -> LoadedModel:
    """The model as if it had never been calibrated."""
    return model.described(model.spec.model_copy(update={"calibration": Calibration()}))
