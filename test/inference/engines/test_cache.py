"""Compiled forms on disk: found again, never mistaken for another's, never in the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from emu_perception.inference.engines import cache
from emu_perception.inference.engines.cache import (
    EngineCache,
    recall_image_size,
    remember_image_size,
)
from emu_perception.inference.model_file import LoadedModel, save_model
from emu_perception.inference.model_names import ModelFileError
from emu_perception.inference.model_spec import Calibration, ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.networks.decoder import SeparateDecoders, separate_decoders


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LoadedModel]) -> LoadedModel:
    return make_model(input_size=(64, 96))


def test_an_entry_is_found_again_by_the_same_model_and_runtime(model: LoadedModel) -> None:
    EngineCache(model, version=1).write("network", lambda: b"compiled")
    assert EngineCache(model, version=1).read("network") == b"compiled"
    assert EngineCache(model, version=1).read("other") is None
    assert EngineCache(model, version=2).read("network") is None
    moved = LoadedModel(model.network, model.spec, Path("elsewhere"))
    assert EngineCache(moved, version=1).read("network") == b"compiled"


def test_other_weights_or_calibration_are_another_model(model: LoadedModel) -> None:
    EngineCache(model).write("network", lambda: b"compiled")
    retrained = model.spec.build().eval()
    calibrated = model.spec.model_copy(update={"calibration": Calibration(temperature=2)})
    assert EngineCache(LoadedModel(retrained, model.spec, model.path)).read("network") is None
    assert EngineCache(LoadedModel(model.network, calibrated, model.path)).read("network") is None


def test_what_was_not_used_for_longest_goes_first(
    model: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT_BYTES", 105)  # each has a digest of 32 bytes
    kept = EngineCache(model)
    for age, name in ((300, "old"), (200, "used"), (100, "new")):
        kept.write(name, lambda: bytes(10))
        (path,) = folder.glob(f"*-{name}.blob")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
        if name == "used":
            # Read later than `new` was written.
            assert kept.read("old") is not None
    assert kept.read("used") is None
    assert kept.read("old") is not None and kept.read("new") is not None


def test_a_folder_that_cannot_be_written_costs_nothing_else(
    model: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_text("a file in the folder's place")
    kept = EngineCache(model)
    kept.write("network", lambda: b"compiled")
    assert kept.read("network") is None
    monkeypatch.setenv(cache.VARIABLE, "")

    def unwanted() -> bytes:
        raise AssertionError("nothing is to be kept")

    EngineCache(model).write("network", unwanted)


def test_a_damaged_entry_is_deleted_and_made_anew(model: LoadedModel, folder: Path) -> None:
    kept = EngineCache(model)
    random = np.random.default_rng(0)
    entry = random.bytes(60_000)
    for damage in ("zeroed page", "flipped bit", "cut off", "empty", "appended"):
        kept.write("network", lambda: entry)
        (path,) = folder.glob("*-network.blob")
        stored = bytearray(path.read_bytes())
        if damage == "zeroed page":
            stored[8192:12288] = bytes(4096)
        elif damage == "flipped bit":
            stored[random.integers(len(stored))] ^= 1 << random.integers(8)
        elif damage == "cut off":
            del stored[-1:]
        elif damage == "empty":
            stored.clear()
        else:
            stored += b"\0"
        path.write_bytes(stored)
        assert kept.read("network") is None, damage
        assert not path.exists(), damage
    kept.write("network", lambda: entry)
    assert kept.read("network") == entry


def test_an_entry_is_on_disk_before_it_takes_its_place(
    model: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace, sync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), sync(file))[1])
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (order.append("replace"), replace(path, to))[1]
    )
    EngineCache(model).write("network", lambda: b"compiled")
    assert order[:2] == ["fsync", "replace"]


def test_what_killed_processes_left_is_cleared_away(model: LoadedModel, folder: Path) -> None:
    folder.mkdir()
    stale, fresh = folder / "a.blob.1.partial", folder / "b.blob.2.partial"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (1e9, 1e9))
    EngineCache(model).write("network", lambda: b"compiled")
    assert not stale.exists() and fresh.exists()


def test_an_entry_that_its_runtime_cannot_read_is_made_anew(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, but of another runtime's making: OpenVINO raises errors of many types."""
    pytest.importorskip("openvino")
    from emu_perception.inference.engines import converted

    image = np.zeros((64, 96, 3), np.uint8)
    expected = Predictor(model, device="cpu", engine="openvino").predict(image)

    class Core:
        def __getattr__(self, name: str) -> object:
            return getattr(core, name)

        def import_model(self, *arguments: object) -> object:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    predictor = Predictor(model, device="cpu", engine="openvino")
    core = converted.core()
    monkeypatch.setattr(converted, "core", Core)
    found = predictor.predict(image)
    assert np.array_equal(expected.depth, found.depth, equal_nan=True)


def test_an_unknown_users_home_is_named_in_one_line(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, "~no_such_user/cache")
    with pytest.raises(ValueError, match="EMU_CACHE_DIR is '~no_such_user/cache'"):
        EngineCache(model)


def test_openvino_compiles_once(
    model: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    first = Predictor(model, device="cpu", engine="openvino").predict(image)
    converted: list[object] = []
    convert = openvino.convert_model

    def count(*arguments: object, **options: object) -> object:
        converted.append(arguments)
        return convert(*arguments, **options)

    monkeypatch.setattr(openvino, "convert_model", count)
    second = Predictor(model, device="cpu", engine="openvino").predict(image)
    assert not converted
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.depth, second.depth, equal_nan=True)
    (network,) = folder.glob("*-network-64x96.blob")
    damaged = network.read_bytes()[:1000]
    network.write_bytes(damaged)
    third = Predictor(model, device="cpu", engine="openvino").predict(image)
    assert len(converted) == 1 and np.array_equal(first.labels, third.labels)
    assert len(network.read_bytes()) > len(damaged)  # mended


def test_where_a_form_was_kept_no_network_is_built(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    path = tmp_path / "model.safetensors"
    save_model(path, model.network, model.spec)
    first = Predictor.from_pretrained(path, device="cpu", engine="openvino").predict(image)
    with monkeypatch.context() as patch:
        patch.setattr(ModelSpec, "build", lambda spec: pytest.fail("built"))
        second = Predictor.from_pretrained(path, device="cpu", engine="openvino").predict(image)
    assert np.array_equal(first.depth, second.depth, equal_nan=True)
    # Weights that fit nothing are refused before the first image: they were never compiled.
    other = model.spec.model_copy(update={"backbone": "mit_b1"})
    save_model(path, model.network, other)
    with pytest.raises(ModelFileError, match="do not fit"):
        Predictor.from_pretrained(path, device="cpu", engine="openvino")


def test_image_sizes_are_remembered_by_model(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    assert recall_image_size(one) is None
    remember_image_size(one, (480, 640))
    remember_image_size(other, (64, 96))
    remember_image_size(one, (720, 1280))
    assert recall_image_size(one) == (720, 1280) and recall_image_size(other) == (64, 96)
    remember_image_size(one, (16384, 16384))
    assert recall_image_size(one) is None
    for broken in (
        "no JSON",
        "[1]",
        "[" * 200_000,
        f'{{"{one}": [480, "x"]}}',
        f'{{"{one}": [0, 9999999]}}',
        f'{{"{one}": [8, 1024]}}',
    ):
        (folder / cache.IMAGE_SIZES).write_text(broken)
        assert recall_image_size(one) is None
    (folder / cache.IMAGE_SIZES).write_bytes(b"\xff\xfe")
    assert recall_image_size(one) is None
    remember_image_size(one, (480, 640))
    assert recall_image_size(one) == (480, 640)


def test_separate_decoders_equal_the_folded_ones(model: LoadedModel) -> None:
    folded = model.network.fold()
    separate = separate_decoders(folded)
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(folded(image).values(), separate(image).values()):
            assert torch.allclose(a, b, rtol=0, atol=1e-5)
    assert any(isinstance(m, SeparateDecoders) for m in separate.modules())
    assert not any(isinstance(m, SeparateDecoders) for m in folded.modules())
