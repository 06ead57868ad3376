"""Model files: what is written is read back, what is damaged is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from emu_perception.labels import load_label_set
from emu_perception.model_file import (
    HEADER_KEY,
    Camera,
    LoadedModel,
    ModelFileError,
    ModelSpec,
    Traits,
    load_model,
    open_model,
    read_spec,
    resolve_model_path,
    save_model,
)


def spec(**changes: object) -> ModelSpec:
    values = {
        "architecture": "segdepthformer",
        "backbone": "mit_b0",
        "tasks": ("semantic", "depth"),
        "arguments": {"width": 8},
        "label_set": load_label_set("camvid"),
        "input_size": (64, 96),
        "camera": Camera(canonical_focal_length=100, assumed_focal_ratio=0.9),
        "data": "noise",
        "license": "Apache-2.0",
        "metrics": {"val": {"miou": 0.5}},
    }
    return ModelSpec(**(values | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_model(path, spec().build(), spec())
    return path


def test_round_trip(path: Path) -> None:
    loaded = load_model(path)
    assert loaded.spec == spec(traits=Traits()) == read_spec(path)
    assert not loaded.network.training
    torch.manual_seed(0)
    original = spec().build().state_dict()
    assert all(torch.equal(v, original[k]) for k, v in loaded.network.state_dict().items())
    assert [p.name for p in path.parent.iterdir()] == ["small.safetensors"]
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode  # whoever may read files may read this one


def test_an_opened_model_is_built_when_it_is_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ModelSpec, "build", lambda spec: pytest.fail("built too early"))
        model = open_model(path)
        again = model.described(model.spec.model_copy(update={"description": "another"}))
        assert model.traits == again.traits == Traits(depth_variance=True)
        weights = again.weights()
    assert not model.network.training and model.network is model.network
    assert weights.keys() == model.network.state_dict().keys()
    assert all(torch.equal(v, weights[k]) for k, v in model.weights().items())


def test_traits_are_those_of_the_network(path: Path, tmp_path: Path) -> None:
    """Whatever the description that it was made from says."""
    kind = spec(architecture="monte_carlo_dropout", traits=Traits(depth_variance=False))
    network = kind.build()
    assert LoadedModel(network, kind, path).traits == Traits(epistemic=True, stochastic=True)
    save_model(path, network, kind)
    assert open_model(path).traits == Traits(epistemic=True, stochastic=True)
    plain = spec(arguments={"width": 8, "depth_variance": False})
    save_model(path, plain.build(), plain)
    assert open_model(path).traits == Traits(depth_variance=False)
    older = plain.model_dump_json(exclude={"traits"})
    save_file(plain.build().state_dict(), path, metadata={HEADER_KEY: older})
    assert read_spec(path).traits is None
    assert open_model(path).traits == Traits(depth_variance=False)


def test_missing_and_damaged_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model file 'nowhere\.safetensors'"):
        load_model("nowhere.safetensors")
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="truncated"):
            load_model(path)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(ModelFileError, match="without this package's description"):
        load_model(foreign)


def test_description_that_does_not_fit_its_weights(path: Path) -> None:
    other = spec(arguments={"width": 16})
    save_model(path, spec().build(), other)
    with pytest.raises(ModelFileError, match="do not fit"):
        load_model(path)
    unknown = spec(architecture="nonesuch")
    save_model(path, spec().build(), unknown)
    with pytest.raises(ModelFileError, match=r"unknown architecture 'nonesuch'; known: .*segdepth"):
        load_model(path)


def test_description_is_validated(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    text = spec().model_dump_json().replace('"input_size":[64,96]', '"input_size":[0,96]')
    save_file({"x": torch.zeros(1)}, path, metadata={"emu_perception": text})
    with pytest.raises(ModelFileError, match="input_size must be at least 32"):
        read_spec(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"emu_perception": "{"})
    with pytest.raises(ModelFileError, match="does not hold"):
        read_spec(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_set": None}, "needs a label_set"),
        ({"depth_range": (5.0, 1.0)}, "0 <= min < max"),
        ({"tasks": ("smell",)}, "semantic"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_impossible_descriptions(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**changes)


def test_shipped_models_are_found_by_name() -> None:
    shipped = resolve_model_path("")
    assert resolve_model_path(shipped.name) == resolve_model_path(shipped.stem) == shipped
    assert shipped.stat().st_size <= 20e6
    described = read_spec(shipped)
    assert described.license and described.data and described.metrics
