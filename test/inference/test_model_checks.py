"""Hostile and damaged model files: refused before anything large is built, in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from emu_perception.inference.model_checks import parse_description
from emu_perception.inference.model_file import (
    HEADER_KEY,
    LoadedModel,
    load_model,
    open_model,
    read_spec,
    save_model,
)
from emu_perception.inference.model_names import ModelFileError, resolve_model_path
from emu_perception.inference.predictor import Predictor
from emu_perception.text import LINE_LIMIT


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LoadedModel]) -> LoadedModel:
    return make_model()


@pytest.fixture
def rewrite(model: LoadedModel, tmp_path: Path) -> Callable[..., Path]:
    """Writes the model with changed fields of its description; text replaces all of it."""

    def write(text: str | None = None, **changes: Any) -> Path:
        path = tmp_path / "hostile.safetensors"
        fields = {**json.loads(model.spec.model_dump_json()), **changes}
        weights = {name: tensor.contiguous() for name, tensor in model.weights().items()}
        save_file(weights, path, metadata={HEADER_KEY: text or json.dumps(fields)})
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as refused:
        load_model(path)
    message = str(refused.value)
    assert "\n" not in message and len(message) <= LINE_LIMIT and "\x1b" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input_size": [10**9, 10**9]}, "input_size must be at most"),
        ({"architecture": "deep_ensemble", "arguments": {"members": 10**9}}, "at most 100"),
        ({"architecture": "deep_ensemble", "arguments": {"members": 99}}, "much larger network"),
        ({"arguments": {"width": 20_000}}, "much larger network"),
        ({"arguments": {"width": 10**12}}, "at most 65536"),
        ({"architecture": "monte_carlo_dropout", "arguments": {"samples": 10**6}}, "at most 1000"),
        (
            {"architecture": "deep_ensemble", "arguments": {"member": "deep_ensemble"}},
            "members of an ensemble are single networks",
        ),
        ({"arguments": {"backbone": "mit_b5"}}, "must not name 'backbone'"),
        ({"arguments": {"classes": 5}}, "must not name 'classes'"),
        ({"arguments": {"width": {"a": 1}}}, "must be a number"),
        ({"arguments": {"width": list(range(1000))}}, "at most 64"),
        ({"arguments": {"width": -8}}, "do not fit"),
        ({"backbone": "../../etc/passwd"}, "name of a timm model"),
        ({"backbone": "hf-hub:somebody/model"}, "name of a timm model"),
        ({"backbone": "\x1b[2J" * 10**5}, "name of a timm model"),
        ({"normalization_std": [0, 1, 1]}, "normalization_std must be positive"),
        ({"depth_range": [0, float("nan")]}, "finite"),
        ({"traits": {"epistemic": True}}, "its description claims"),
        ({"metrics": {str(i): i for i in range(200_000)}}, "characters, at most"),
    ],
)
def test_descriptions_that_ask_for_too_much(
    rewrite: Callable[..., Path], changes: dict[str, Any], complaint: str
) -> None:
    assert complaint in refusal(rewrite(**changes))


def test_descriptions_that_are_nested(rewrite: Callable[..., Path]) -> None:
    for depth in (100, 100_000):
        nested = '{"metrics": ' + '{"a": ' * depth + "1" + "}" * depth + "}"
        assert "nested too deeply" in refusal(rewrite(nested))


def test_a_header_longer_than_any_network_needs(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    with path.open("wb") as file:
        file.write((90_000_000).to_bytes(8, "little"))
        file.seek(90_000_008)
        file.write(b"\0")
    assert os.stat(path).st_blocks * 512 < 10**6  # sparse
    assert "its header has 90000000 bytes" in refusal(path)


def test_changed_weights_are_refused(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model.network, model.spec)
    stored = bytearray(path.read_bytes())
    stored[-1000] ^= 1  # the lowest bit of some number
    path.write_bytes(stored)
    assert read_spec(path).architecture == model.spec.architecture
    assert "digest differs" in refusal(path)
    with pytest.raises(ModelFileError, match="digest differs"):
        open_model(path).weights()


def test_weights_that_are_not_finite_are_refused(rewrite: Callable[..., Path]) -> None:
    """Also of files without a digest."""
    path = rewrite()
    assert load_model(path).spec.architecture == "segdepthformer"
    weights = load_file(path)
    name = next(name for name, tensor in weights.items() if tensor.dim() == 4)
    weights[name].view(-1)[3] = torch.nan
    save_file(weights, path, metadata={HEADER_KEY: read_spec(path).model_dump_json()})
    assert f"'{name}' hold numbers that are not finite" in refusal(path)


def test_a_warm_up_that_is_not_finite_is_refused(make_model: Callable[..., LoadedModel]) -> None:
    model = make_model()
    predictor = Predictor(model, device="cpu", engine="pytorch")
    predictor.warm_up(48, 64)
    with torch.no_grad():
        for parameter in model.network.decoders["depth"].parameters():
            parameter.fill_(3e38)  # finite, but no sum of two is
    with pytest.raises(ModelFileError, match=r"'(depth|depth_variance)' is not finite"):
        Predictor(model, device="cpu", engine="pytorch").warm_up(48, 64)


@pytest.mark.parametrize(
    "name", [path.stem for path in sorted(resolve_model_path("").parent.glob("*.safetensors"))]
)
def test_shipped_models_carry_their_digest(name: str) -> None:
    from safetensors import safe_open

    path = resolve_model_path(f"{name}.safetensors")
    with safe_open(path, framework="pt") as file:
        _, expected = parse_description((file.metadata() or {})[HEADER_KEY])
    assert expected is not None and len(expected) == 64
    assert open_model(path).weights()  # checked
