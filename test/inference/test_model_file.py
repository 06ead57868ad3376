"""Model files: what is written is read back, what is damaged is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from emu_perception.inference.model_file import (
    HEADER_KEY,
    LoadedModel,
    is_half,
    load_model,
    open_model,
    read_spec,
    save_model,
)
from emu_perception.inference.model_names import ModelFileError, resolve_model_path
from emu_perception.inference.model_spec import Camera, ModelSpec, Traits
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set


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


def test_weights_in_fp16_take_half_the_room_and_load_as_fp32(path: Path) -> None:
    loaded = load_model(path)
    network = loaded.network
    # A deviation that fp16 has no number for, and a weight beyond its range.
    norm: Any = network.decoders["semantic"].norm  # type: ignore[union-attr, index]
    norm.running_var.fill_(1e-9)
    largest: Any = max(network.parameters(), key=torch.numel)
    largest.data[0, 0] = 1e6
    full, half = path.with_name("full.safetensors"), path.with_name("half.safetensors")
    save_model(full, network, loaded.spec)
    save_model(half, network, loaded.spec, half=True)
    assert half.stat().st_size < 0.65 * full.stat().st_size
    assert is_half(half) and not is_half(full)
    expected, opened = network.state_dict(), open_model(half)
    for found in (opened.weights(), opened.network.state_dict()):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.dtype == expected[name].dtype, name
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-7)
    assert torch.equal(opened.weights()["decoders.semantic.norm.running_var"], norm.running_var)
    # Writing what was read loses nothing more.
    again = path.with_name("again.safetensors")
    save_model(again, opened.network, opened.spec, half=True)
    assert again.read_bytes() == half.read_bytes()


def test_the_shipped_model_predicts_the_same_in_fp16(tmp_path: Path) -> None:
    model = load_model("")
    half = tmp_path / "half.safetensors"
    save_model(half, model.network, model.spec, half=True)
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = blocks.repeat(32, axis=0).repeat(32, axis=1)
    maps = {"probabilities", "depth", "depth_variance"}
    full, stored = (
        Predictor(loaded, "cpu", engine="pytorch").predict(image, maps=maps)
        for loaded in (model, load_model(half))
    )
    for name in maps:
        expected = getattr(full, name)
        difference = np.abs(getattr(stored, name) - expected) / np.nanmax(expected)
        # Between two classes a probability changes fast.
        assert np.nanquantile(difference, 0.99 if name == "probabilities" else 1.0) <= 1e-3, name


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


@pytest.mark.parametrize("name", ["street", "room"])
def test_shipped_models_are_found_by_name(name: str) -> None:
    shipped = resolve_model_path(name)
    assert (resolve_model_path("") == shipped) == (name == "street")
    assert resolve_model_path(name, weights=True).suffix == ".safetensors"
    assert resolve_model_path(shipped.name) == resolve_model_path(shipped.stem) == shipped
    assert shipped.stat().st_size <= 20e6
    described = read_spec(shipped)
    assert described.license and described.data and described.metrics
    assert described.domain is not None
    with pytest.raises(ModelFileError) as caught:
        resolve_model_path("steet")
    message = str(caught.value)
    assert "'steet'" in message and f", {shipped.stem}" in message and "\n" not in message


def test_a_predictor_comes_from_a_name_or_a_path() -> None:
    import emu_perception

    by_name = emu_perception.Predictor.from_pretrained("street", "cpu")
    assert by_name.path == emu_perception.Predictor.from_pretrained("").path
    assert emu_perception.load_model("street").path == by_name.path.with_suffix(".safetensors")
