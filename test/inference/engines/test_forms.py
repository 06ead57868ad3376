"""Compiled forms in memory: sizes that come and go are not compiled, their maps are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from emu_perception.inference.engines.forms import PATIENCE, CompiledForms
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.predictor import Predictor


def test_the_first_forms_are_compiled_at_once_and_kept() -> None:
    forms: CompiledForms[str] = CompiledForms(2)
    compiled: list[str] = []

    def get(key: str) -> str | None:
        return forms.get(key, lambda: (compiled.append(key), key)[1])

    assert [get(key) for key in "abab"] == list("abab")
    assert compiled == list("ab")
    assert [get("c") for _ in range(PATIENCE)] == [None] * PATIENCE
    assert get("c") == "c" and get("b") == "b"
    assert get("a") is None  # the least recently used one made room
    forms.clear()
    assert get("a") == "a" and compiled == list("abca")


def test_changing_sizes_compile_ever_more_seldom() -> None:
    forms: CompiledForms[int] = CompiledForms(3)
    compiled: list[int] = []
    random = np.random.default_rng(0)
    for key in random.integers(0, 40, 20_000).tolist():
        forms.get(key, lambda key=key: compiled.append(key) or key)
    assert len(compiled) <= 3 + (2 * 20_000 / PATIENCE) ** 0.5


def test_openvino_compiles_no_size_that_does_not_stay(
    make_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    from emu_perception.inference.engines import converted
    from emu_perception.inference.engines import openvino as engine

    monkeypatch.setenv("EMU_CACHE_DIR", "")
    monkeypatch.setattr(engine, "KEPT_SIZES", 1)
    model = make_model(input_size=(64, 64))
    compiled: list[str] = []
    compile_anew = converted.ConvertedSource._compile_anew

    def count(self: converted.ConvertedSource, name: str, *arguments: object) -> object:
        compiled.append(name)
        return compile_anew(self, name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(converted.ConvertedSource, "_compile_anew", count)
    fast = Predictor(model, device="cpu", engine="openvino")
    reference = Predictor(model, device="cpu", engine="pytorch")
    random = np.random.default_rng(0)
    for height, width in ((64, 64), (64, 63), (61, 64), (20, 64), (40, 40), (64, 22)):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        found, expected = fast.predict(image), reference.predict(image)
        assert np.mean(found.labels == expected.labels) > 0.999
        assert np.allclose(found.depth, expected.depth, rtol=1e-4, atol=1e-4, equal_nan=True)
        assert np.allclose(found.confidence, expected.confidence, rtol=0, atol=1e-4)
    assert len(compiled) == 1
    fast.close()
