"""Ensembles from files and sampled dropout from one."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.inference.methods import (
    deep_ensemble,
    load_models,
    monte_carlo_dropout,
    uncalibrated,
)
from emu_perception.inference.model_file import LoadedModel, load_model, save_model
from emu_perception.inference.model_spec import Calibration, ModelSpec
from emu_perception.labels import load_label_set


def member(seed: int, **changes: object) -> LoadedModel:
    torch.manual_seed(seed)
    values: dict = {
        "architecture": "segdepthformer",
        "backbone": "mit_b0",
        "tasks": ("semantic", "depth"),
        "arguments": {"width": 8, "dropout": 0.2},
        "label_set": load_label_set("camvid"),
        "input_size": (64, 96),
        "calibration": Calibration(temperature=2.0, fitted_on="something"),
    }
    spec = ModelSpec(**values | changes)
    return LoadedModel(spec.build().eval(), spec, Path(f"member{seed}"))


def test_several_files_are_an_ensemble_and_one_is_itself(tmp_path: Path) -> None:
    members = [member(seed) for seed in range(2)]
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for path, each in zip(paths, members, strict=True):
        save_model(path, each.network, each.spec)
    assert load_models(paths[:1]).spec.architecture == "segdepthformer"
    ensemble = load_models(paths)
    assert ensemble.spec.arguments == {"width": 8, "dropout": 0.2, "members": 2}
    assert ensemble.spec.calibration == Calibration()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        stacked = ensemble.network(image)
        for i, each in enumerate(members):
            assert torch.equal(stacked["depth"][i], each.network(image)["depth"])


def test_what_makes_no_ensemble() -> None:
    with pytest.raises(ValueError, match="at least two"):
        deep_ensemble([member(0)])
    with pytest.raises(ValueError, match="differ in arguments"):
        deep_ensemble([member(0), member(1, arguments={"width": 16})])
    split = {"width": 8, "split_uncertainty": True}
    with pytest.raises(ValueError, match="students"):
        deep_ensemble([member(0, arguments=split), member(1, arguments=split)])
    with pytest.raises(ValueError, match="single networks"):
        deep_ensemble([deep_ensemble([member(0), member(1)]), member(2)])


def test_dropout_keeps_the_weights_and_needs_a_calibration_of_its_own() -> None:
    trained = member(0)
    sampled = monte_carlo_dropout(trained, 0.5, samples=3)
    assert sampled.spec.arguments == {"width": 8, "dropout": 0.5, "samples": 3}
    assert sampled.spec.calibration == Calibration()
    assert trained.spec.calibration.temperature == 2.0
    assert uncalibrated(trained).spec.calibration == Calibration()
    before = trained.network.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in sampled.network.state_dict().items())
    with pytest.raises(ValueError, match="only single networks"):
        monte_carlo_dropout(sampled, 0.5)


def test_the_command_writes_a_file_that_samples_its_dropout(tmp_path: Path) -> None:
    trained, plain = member(0), member(1, arguments={"width": 8})
    for name, model in (("trained", trained), ("plain", plain)):
        save_model(tmp_path / name, model.network, model.spec)
    out = tmp_path / "sampled.safetensors"
    command = ["model", "dropout", str(tmp_path / "trained"), "--out", str(out)]
    assert CliRunner().invoke(app, [*command, "--samples", "2"]).exit_code == 0
    found = load_model(out)
    assert found.spec.architecture == "monte_carlo_dropout"
    assert found.spec.arguments == {"width": 8, "dropout": 0.2, "samples": 2}
    with torch.inference_mode():
        first, second = found.network(torch.randn(1, 3, 64, 64))["semantic"]
    assert not torch.equal(first, second)
    command[2] = str(tmp_path / "plain")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "trained without dropout" in refused.output
