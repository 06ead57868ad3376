"""Deployment files equal PyTorch, run without torch, or are not written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emu_perception.camera import Intrinsics
from emu_perception.inference import export as exporting
from emu_perception.inference.engines.base import choose_precision
from emu_perception.inference.export import ExportError, export
from emu_perception.inference.methods import deep_ensemble, monte_carlo_dropout
from emu_perception.inference.model_file import (
    HEADER_KEY,
    DeployedModel,
    LoadedModel,
    load_model,
    open_model,
    read_spec,
)
from emu_perception.inference.model_names import ModelFileError
from emu_perception.inference.model_spec import Camera
from emu_perception.inference.onnx_file import read_metadata
from emu_perception.inference.predictor import Predictor

pytest.importorskip("onnxruntime", reason="the extra [torch] is missing")
pytest.importorskip("openvino", reason="OpenVINO is missing")
MakeModel = Callable[..., LoadedModel]
CAMERA = {"canonical_focal_length": 80.0, "assumed_focal_ratio": 0.9}
SMALL: dict[str, Any] = {
    "input_size": (64, 96), "depth_range": (0.1, 1000.0), "depth_mean": 20.0,
    "camera": Camera(**CAMERA),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> LoadedModel:
    return make_model(backbone="resnet10t", **SMALL)


@pytest.fixture(scope="module")
def deployed(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deployed") / "new" / "model.onnx"
    differences = export(model, path)
    assert max(differences.values()) < 1e-3
    assert differences.keys() == {
        "labels", "confidence", "semantic_entropy", "depth", "depth_variance",
    }  # fmt: skip
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return path


def test_header_and_kind(deployed: Path, model: LoadedModel) -> None:
    header = json.loads(read_metadata(deployed)[HEADER_KEY])
    assert header["label_set"]["name"] == "camvid" and header["checked_precisions"] == ["fp32"]
    assert read_spec(deployed).traits == model.traits
    opened = open_model(deployed)
    assert isinstance(opened, DeployedModel)
    with pytest.raises(ModelFileError, match=r"need the \.safetensors file"):
        load_model(deployed)
    with pytest.raises(ValueError, match=r"runs \.safetensors files"):
        Predictor(opened, engine="pytorch")
    with pytest.raises(ValueError, match=r"'onnxruntime' runs \.onnx files"):
        Predictor(model, device="cpu", engine="onnxruntime")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engines_at_other_sizes_and_cameras(
    engine: str, deployed: Path, model: LoadedModel
) -> None:
    reference = Predictor(model, device="cpu", engine="pytorch")
    predictor = Predictor.from_pretrained(deployed, "cpu", engine=engine)
    assert predictor.engine == engine
    assert predictor.available_maps == reference.available_maps
    generator = np.random.default_rng(3)
    cases = [
        ((100, 90), Intrinsics(70, 75, 40, 55, 90, 100), None),
        ((64, 96), None, (33, 47)),
        ((48, 160), Intrinsics(160, 160, 80, 24, 160, 48), (96, 320)),
    ]
    for (height, width), camera, size in cases:
        image = exporting._smooth_image(generator, height, width)
        a, b = (
            each.predict(image, camera, maps=each.available_maps, output_size=size)
            for each in (reference, predictor)
        )
        assert (a.labels == b.labels).mean() >= 0.999
        for name in predictor.available_maps - {"labels"}:
            assert exporting._difference(name, getattr(b, name), getattr(a, name)) < 1e-3, name
        x, y = (each.features(image, camera) for each in (reference, predictor))
        assert x is not None and y is not None and x.shape == y.shape == (512,)
        assert np.allclose(x, y, rtol=1e-3, atol=1e-4)


def test_the_node_s_process_needs_no_torch(deployed: Path) -> None:
    """Predicting in a process where torch cannot be imported."""
    code = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = sys.modules["safetensors"] = None
import numpy as np
import emu_perception.inference
from emu_perception.inference.predictor import Predictor
prediction = Predictor.from_pretrained({str(deployed)!r}).predict(np.zeros((48, 64, 3), np.uint8))
assert prediction.depth.shape == (48, 64)
import emu_perception.cli.predict, emu_perception.cli.bag, emu_perception.cli.demo.command
import emu_perception.recordings.evaluate, emu_perception.recordings.mine
import emu_perception.benchmark.node, emu_perception.evaluation.evaluator
print(sorted(m for m in sys.modules if m.split(".")[0] in ("torchvision", "timm", "lightning")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def _densemtl(make_model: MakeModel) -> LoadedModel:
    made = make_model(
        architecture="densemtl", backbone="resnet10t", tasks=("semantic", "depth", "normals"),
        arguments={"dilated": False, "width": 0.125}, **(SMALL | {"input_size": (32, 64)}),
    )  # fmt: skip
    gates = [p for n, p in made.network.named_parameters() if n.endswith("alpha")]
    for gate in gates:  # attention starts at nothing
        torch.nn.init.normal_(gate)
    assert len(gates) == 3 * 2
    return made


def _ensemble(make_model: MakeModel) -> LoadedModel:
    members = [make_model(backbone="resnet10t", **SMALL) for _ in range(2)]
    for parameter in members[1].network.parameters():
        parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
    return deep_ensemble(members)


SYSTEMS: dict[str, Callable[[MakeModel], LoadedModel]] = {
    "rays and unequal padding": lambda make: make(
        backbone="tf_efficientnet_lite0", arguments={"width": 16, "rays": True}, **SMALL
    ),
    "mix transformer, split uncertainty, focal length by area": lambda make: make(
        arguments={"width": 16, "split_uncertainty": True},
        **(SMALL | {"camera": Camera(**CAMERA, assumed_focal_of="area")}),
    ),
    "ensemble": _ensemble,
    "no camera": lambda make: make(backbone="resnet10t", **(SMALL | {"camera": None})),
    "densemtl": _densemtl,
    "xtasc": lambda make: make(
        architecture="xtasc", backbone="resnet10t", arguments={"width": 8}, **SMALL
    ),
    "mtpsl": lambda make: make(
        architecture="segnet", backbone="segnet", arguments={"widths": (8, 8, 16, 16, 16)}, **SMALL
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_be_exported(
    name: str, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights give nearly equal scores: rounding decides between some labels.
    monkeypatch.setattr(exporting, "AGREEMENT", 0.95)
    differences = export(SYSTEMS[name](make_model), tmp_path / "model.onnx")
    assert max(v for k, v in differences.items() if k != "labels") < 1e-3


def test_a_differing_file_is_not_kept(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LoadedModel(model.spec.build().eval(), model.spec, model.path)
    write = exporting.write_graph
    monkeypatch.setattr(exporting, "write_graph", lambda _, *rest: write(other, *rest))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=r"is not written: it differs from PyTorch in .*depth by"):
        export(model, path)
    assert path.read_bytes() == b"earlier"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


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


def test_bf16_is_chosen_where_it_was_checked(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = exporting._smooth_image(np.random.default_rng(0), 64, 96)
    found = exporting.reduced_precision(model, [image])
    assert found.keys() == {"labels", "depth", "uncertainty"}
    assert 0 < found["depth"] < 0.05
    assert exporting.reduced_precision(model, []) == {}
    base = "emu_perception.inference.engines.base._computes_in_bf16"
    monkeypatch.setattr(base, lambda: True)
    assert choose_precision("auto", "cpu", "openvino", ("fp32", "bf16")) == "bf16"
    assert choose_precision("auto", "cpu", "openvino", ("fp32",)) == "fp32"
    assert choose_precision("auto", "cpu", "onnxruntime", ("fp32", "bf16")) == "fp32"
    monkeypatch.setattr(base, lambda: False)
    assert choose_precision("auto", "cpu", "openvino", ("fp32", "bf16")) == "fp32"


@pytest.mark.parametrize("kept", [0, 1, 9, 40, 1000])
def test_truncated_files_are_named(kept: int, deployed: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(deployed.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        open_model(path)


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    for content in (b"\xff" * 64, b"version https://git-lfs", b"\x00" * 32):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"foreign\.onnx"):
            open_model(path)


def test_models_that_cannot_be_exported(
    make_model: MakeModel, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="samples its dropout"):
        export(monte_carlo_dropout(make_model(), 0.2, 2), tmp_path / "model.onnx")
