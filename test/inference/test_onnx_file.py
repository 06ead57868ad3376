"""Changed, lying and foreign `.onnx` files are refused in a line before a runtime uses them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emu_perception.inference import onnx_file
from emu_perception.inference.model_checks import DIGEST
from emu_perception.inference.model_file import HEADER_KEY, open_model
from emu_perception.inference.model_names import ModelFileError, resolve_model_path
from emu_perception.inference.onnx_file import check_graph, graph_digest, read_metadata
from emu_perception.inference.predictor import Predictor
from emu_perception.text import LINE_LIMIT

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
ENGINES = ("openvino", "onnxruntime")
Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emu_perception.inference.export import write_graph
    from emu_perception.reliability.deployed import small_model

    folder = tmp_path_factory.mktemp("sound")
    model = small_model(folder / "small.safetensors")
    write_graph(model, folder / "d.onnx", model.spec.model_copy(update={"traits": model.traits}))
    return folder / "d.onnx"


@pytest.fixture
def changed(sound: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Writes a changed graph with its own digest, as an attacker would."""

    def write(change: Change) -> Path:
        model = onnx.load(str(sound))
        description = json.loads(model.metadata_props[0].value)
        del model.metadata_props[:]
        change(model)
        path = tmp_path / "changed.onnx"
        path.write_bytes(model.SerializeToString())
        description[DIGEST] = graph_digest(path)
        entry = model.metadata_props.add()
        entry.key, entry.value = HEADER_KEY, json.dumps(description)
        path.write_bytes(model.SerializeToString())
        return path

    return write


def refusal(path: Path, engine: str = "openvino") -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ModelFileError) as caught:
        Predictor.from_pretrained(path, "cpu", "fp32", engine).warm_up(64, 64)
    text = str(caught.value)
    assert "\n" not in text and len(text) <= LINE_LIMIT
    return text


def weight(model: Any) -> Any:
    return max(model.graph.initializer, key=lambda each: len(each.raw_data))


def test_the_digest_is_that_of_all_but_the_metadata(sound: Path) -> None:
    assert json.loads(read_metadata(sound)[HEADER_KEY])[DIGEST] == graph_digest(sound)
    for engine in ENGINES:
        predictor = Predictor.from_pretrained(sound, "cpu", "fp32", engine)
        assert predictor.predict(np.zeros((64, 64, 3), np.uint8)).depth is not None


def test_one_changed_bit_is_found(sound: Path, tmp_path: Path) -> None:
    data = bytearray(sound.read_bytes())
    stored = weight(onnx.load(str(sound))).raw_data
    data[data.index(stored) + 100] ^= 1
    path = tmp_path / "damaged.onnx"
    path.write_bytes(data)
    assert "its digest differs" in refusal(path)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_found(number: float, changed: Callable[..., Path]) -> None:
    def change(model: Any) -> None:
        data = bytearray(weight(model).raw_data)
        data[8:12] = struct.pack("<f", number)
        weight(model).raw_data = bytes(data)

    assert "hold numbers that are not finite" in refusal(changed(change))


@pytest.mark.parametrize("place", ["/dev/zero", "../secret", "small.safetensors"])
def test_no_other_file_is_read(place: str, changed: Callable[..., Path]) -> None:
    def change(model: Any) -> None:
        stored = weight(model)
        stored.ClearField("raw_data")
        stored.data_location = 1
        entry = stored.external_data.add()
        entry.key, entry.value = "location", place

    assert "its weights are in other files" in refusal(changed(change))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("output", "times"),
    [("raw_semantic", [1, 2, 1, 1]), ("raw_depth", [1, 1, 64, 64]), ("raw_depth", [1, 1, 0, 1])],
)
def test_outputs_that_the_description_does_not_have(
    engine: str, output: str, times: list[int], changed: Callable[..., Path]
) -> None:
    def change(model: Any) -> None:
        for place, node in enumerate(model.graph.node):
            if output in node.output:
                node.output[0] = "before"
                tile = onnx.helper.make_node("Tile", ["before", "times"], [output])
                model.graph.initializer.append(onnx.helper.make_tensor("times", 7, [4], times))
                model.graph.node.insert(place + 1, tile)
                return

    name = output.removeprefix("raw_")
    assert f"its output '{name}' has the shape (1, " in refusal(changed(change), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_graphs_that_no_runtime_takes(engine: str, changed: Callable[..., Path]) -> None:
    def lie(model: Any) -> None:
        weight(model).dims[0] = 2**40

    assert "cannot be read by" in refusal(changed(lie), engine)

    def replace(model: Any) -> None:
        next(each for each in model.graph.node if each.op_type == "Conv").op_type = "NoSuch"

    assert "cannot be read by" in refusal(changed(replace), engine)


def test_operator_sets_of_the_far_future(changed: Callable[..., Path]) -> None:
    def change(model: Any) -> None:
        model.opset_import[0].version = 10**6  # OpenVINO takes many seconds for it

    assert "its operator set has the version 1000000" in refusal(changed(change))


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_files_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.onnx"
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 1000)
    path.write_bytes(b"\x08\x07" * 2000)
    with pytest.raises(ValueError, match="more than 1000 fields"):
        read_metadata(path)
    monkeypatch.setattr(onnx_file, "MAX_METADATA", 5000)
    path.write_bytes(_field(14, _field(1, b"k") + _field(2, b"v" * 3000)) * 2)
    with pytest.raises(ValueError, match="more than 5000 bytes"):
        read_metadata(path)
    nested = b""
    for _ in range(10):  # a graph in an attribute of a node of a graph
        nested = _field(1, _field(5, _field(6, nested)))
    path.write_bytes(_field(7, nested))
    with pytest.raises(ValueError, match="nested more than"):
        check_graph(path, None)


@pytest.mark.parametrize(
    "path", sorted(resolve_model_path("").parent.glob("*.onnx")), ids=lambda path: path.stem
)
def test_shipped_models_are_sound(path: Path) -> None:
    assert open_model(path).spec.input_size
