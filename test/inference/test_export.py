"""Exported files say what PyTorch says, or are not left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emu_perception.inference import export as exporting
from emu_perception.inference.export import (
    FORMATS,
    ExportError,
    export,
)
from emu_perception.inference.methods import monte_carlo_dropout
from emu_perception.inference.model_file import (
    HEADER_KEY,
    LoadedModel,
    ModelSpec,
)
from emu_perception.inference.predictor import Predictor


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LoadedModel]) -> LoadedModel:
    # A small encoder: test_rays exports a Mix Transformer.
    size: dict[str, Any] = {"input_size": (64, 96), "backbone": "resnet10t"}
    return make_model(**size, depth_range=(0.1, 1000.0), depth_mean=20.0)


def test_onnx_runtime_runs_the_file_as_the_predictor_does(
    model: LoadedModel, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [export] is missing")
    pytest.importorskip("onnxscript", reason="the extra [export] is missing")
    path = tmp_path / "new" / "model.onnx"
    differences = export(model, path, "onnx")
    assert max(differences.values()) < 1e-3
    assert set(differences) == {
        "labels", "confidence", "semantic_entropy", "depth", "depth_variance",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map[HEADER_KEY])
    assert described["label_set"]["name"] == "camvid"
    image = np.random.default_rng(7).integers(0, 256, (64, 96, 3), np.uint8)
    names = sorted(differences)
    found = dict(zip(names, session.run(names, {"image": image[None]}), strict=True))
    expected = Predictor(model, device="cpu", engine="pytorch").predict(image)
    assert (found["labels"] == expected.labels).mean() >= 0.999
    assert np.nanmax(np.abs(found["depth"] - expected.depth)) < 1e-2
    # A file that differs is refused: here it is compared with a network of other weights.
    other = LoadedModel(model.spec.build().eval(), model.spec, model.path)
    run = exporting._load_onnx(path, list(differences))
    reference = exporting.ExportedModel(other, (64, 96), folded=False)
    assert exporting.compare(run, reference)["depth"] > 1e-3


def test_exchange_between_tasks_survives_the_export(
    make_model: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra [export] is missing")
    pytest.importorskip("onnxscript", reason="the extra [export] is missing")
    model = make_model(
        architecture="densemtl",
        backbone="resnet10t",
        tasks=("semantic", "depth", "normals"),
        arguments={"dilated": False, "width": 0.125},
        input_size=(32, 64),
        depth_range=(0.1, 1000.0),
    )
    gates = [p for n, p in model.network.named_parameters() if n.endswith("alpha")]
    for gate in gates:  # so that attention, which starts at nothing, is heard
        torch.nn.init.normal_(gate)
    assert len(gates) == 3 * 2
    differences = export(model, tmp_path / "model.onnx", "onnx")
    assert {"labels", "depth", "normals"} <= set(differences)
    assert max(differences.values()) < 1e-3


def test_a_wrong_file_is_deleted(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(module: object, example: object, path: Path, spec: ModelSpec) -> None:
        path.write_text("a file")

    def load(path: Path, names: list[str]) -> object:
        assert path.is_file()
        zeros = {name: np.zeros((64, 96), np.float32) for name in names}
        return lambda image: {**zeros, "labels": np.zeros((64, 96), np.uint8)}

    monkeypatch.setitem(exporting._WRITERS, "onnx", write)
    monkeypatch.setitem(exporting._LOADERS, "onnx", load)
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"differed from PyTorch and was deleted: .*depth by 1"):
        export(model, path, "onnx")
    assert not path.exists()


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (np.zeros((2, 2), np.float32), float("inf")),  # of another size
        (np.full((2, 3), np.nan, np.float32), float("inf")),
        (np.ones((2, 3), np.float64), float("inf")),
        (np.full((2, 3), 1.5, np.float32), 0.5),
    ],
)
def test_differences(found: np.ndarray, wrong: float) -> None:
    assert exporting._difference("depth", found, np.ones((2, 3), np.float32)) == wrong


def test_what_cannot_be_exported(
    make_model: Callable[..., LoadedModel],
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ExportError, match="multiples of 32, got 100 x 64"):
        export(model, tmp_path / "model.onnx", "onnx", (64, 100))
    with pytest.raises(ExportError, match="samples its dropout"):
        export(monte_carlo_dropout(make_model(), 0.2, 2), tmp_path / "model.onnx", "onnx")
    with pytest.raises(ExportError, match=f"format must be {', '.join(FORMATS)}, got 'zip'"):
        export(model, tmp_path / "model.zip", "zip")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="trtexec is not on the PATH"):
        export(model, tmp_path / "model.engine", "tensorrt")
