"""`.onnx` model files, sound and spoilt: their description, their bytes, their graph."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator as Rng

from emu_perception.inference.export import write_graph
from emu_perception.inference.model_checks import DIGEST
from emu_perception.inference.model_file import HEADER_KEY, LoadedModel, open_model, save_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.onnx_file import graph_digest, read_metadata
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.prediction import UNLABELLED, Prediction
from emu_perception.reliability.judge import Case
from emu_perception.reliability.messages import pick

SIZE = (64, 64)
SLOW = 10.0
"""CPU seconds of loading and compiling a network."""
ENGINES = ("onnxruntime", "openvino")
_FLOAT, _INT64 = 1, 7
_NUMBERS = (math.nan, math.inf, -math.inf, 1e38)
_LENGTHS = (-5, 0, 1, 2**31 - 1, 2**40, 2**62)


def small_model(path: Path) -> LoadedModel:
    """A network of a few thousand numbers, whose weights are also written to a file."""
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="segnet",
        backbone="segnet",
        tasks=("semantic", "depth"),
        arguments={"widths": [8, 8, 16, 16, 16]},
        label_set=load_label_set("camvid"),
        input_size=SIZE,
    )
    network: Any = spec.build().eval()
    save_model(path, network, spec)
    return LoadedModel(network, spec, path)


class DeployedCases:
    """Cases of `.onnx` files, in a folder."""

    def __init__(self, folder: Path) -> None:
        import onnx

        self._path = folder / "d.onnx"
        sound = folder / "sound.onnx"
        model = small_model(folder / "small.safetensors")
        write_graph(model, sound, model.spec.model_copy(update={"traits": model.traits}))
        self._bytes = sound.read_bytes()
        self._description: dict[str, Any] = json.loads(read_metadata(sound)[HEADER_KEY])
        self._graph = onnx.load_from_string(self._bytes)
        self._image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        self._reference = {engine: self._predict(sound, engine) for engine in ENGINES}
        """Maps of the sound file, which is normal work."""

    def case(
        self, rng: Rng, index: int, spoil: Callable[[Rng, Any], Any], damage: Callable[..., bytes]
    ) -> Case:
        """A file whose description, bytes or graph are spoilt, or which is sound.

        Args:
            rng: of this case.
            index: of this case.
            spoil: changes the values of a description.
            damage: changes bytes.
        """
        engine = ENGINES[index % len(ENGINES)]
        sound = rng.random() < 0.1
        if sound:
            data = self._bytes
        elif rng.random() < 0.3:
            data = damage(rng, self._bytes)
        elif rng.random() < 0.4:
            data = self._with(spoil(rng, self._description))
        else:
            data = self._with_other_graph(rng)
        self._path.write_bytes(data)
        same = data == self._bytes

        def check(found: Prediction) -> str | None:
            return self._judge(found, self._reference[engine] if same else None)

        run = lambda: self._predict(self._path, engine)  # noqa: E731
        return Case(run, check, seconds=SLOW, sound=same)

    def _predict(self, path: Path, engine: str) -> Prediction:
        predictor = Predictor(open_model(path), "cpu", "fp32", engine)
        try:
            predictor.warm_up(*SIZE)
            return predictor.predict(self._image)
        finally:
            predictor.close()

    def _judge(self, found: Prediction, reference: Prediction | None) -> str | None:
        for name, values in vars(found).items():
            if isinstance(values, np.ndarray) and values.shape[:2] != SIZE:
                return f"{name} has the shape {values.shape}"
        if reference is not None:
            for name in ("labels", "depth"):
                a, b = getattr(found, name), getattr(reference, name)
                if not np.array_equal(a, b, equal_nan=name == "depth"):
                    return f"other {name} than those of the same file before"
        if found.labels is not None and found.confidence is not None:
            known = found.labels[found.labels != UNLABELLED]
            if known.size and known.max() >= 256 - 1:
                return f"the label {known.max()}"
            if not ((found.confidence >= 0) & (found.confidence <= 1.001)).all():
                return f"a confidence of {found.confidence.max()}"
        if found.depth is not None and np.isinf(found.depth).any():
            return "the depth is infinite"
        return None

    def _with(self, description: Any) -> bytes:
        """The sound graph with another description."""
        changed = type(self._graph)()
        changed.CopyFrom(self._graph)
        del changed.metadata_props[:]
        entry = changed.metadata_props.add()
        entry.key, entry.value = HEADER_KEY, json.dumps(description)
        return bytes(changed.SerializeToString())

    def _with_other_graph(self, rng: Rng) -> bytes:
        """A changed graph, mostly with its own digest: what an attacker would write."""
        changed = type(self._graph)()
        changed.CopyFrom(self._graph)
        del changed.metadata_props[:]
        for _ in range(int(rng.integers(1, 3))):
            _spoil_graph(rng, changed)
        self._path.write_bytes(changed.SerializeToString())
        description = dict(self._description)
        if rng.random() < 0.9:
            description[DIGEST] = graph_digest(self._path)
        else:
            del description[DIGEST]  # as in files of older versions
        entry = changed.metadata_props.add()
        entry.key, entry.value = HEADER_KEY, json.dumps(description)
        return bytes(changed.SerializeToString())


def _spoil_graph(rng: Rng, model: Any) -> None:
    graph = model.graph
    weights = [each for each in graph.initializer if each.data_type == _FLOAT and each.raw_data]
    weight = pick(rng, weights)
    node = pick(rng, graph.node)
    match int(rng.integers(12)):
        case 0:
            place = 4 * int(rng.integers(len(weight.raw_data) // 4))
            data = bytearray(weight.raw_data)
            data[place : place + 4] = struct.pack("<f", pick(rng, _NUMBERS))
            weight.raw_data = bytes(data)
        case 1:
            weight.dims[int(rng.integers(len(weight.dims)))] = pick(rng, _LENGTHS)
        case 2:
            weight.raw_data = weight.raw_data[: int(rng.integers(len(weight.raw_data)))]
        case 3:
            weight.ClearField("raw_data")
            weight.data_location = 1
            place = pick(rng, ("/dev/zero", "../../../../etc/passwd", "sound.onnx", "x" * 5000))
            for key, value in (("location", place), ("offset", "0"), ("length", "4096")):
                entry = weight.external_data.add()
                entry.key, entry.value = key, value
        case 4:
            node.op_type = pick(rng, ("NoSuchOperator", "Loop", "Relu", "\x1b[31m", "y" * 5000))
        case 5:
            node.domain = pick(rng, ("evil", "com.microsoft", "ai.onnx.ml"))
        case 6 if node.input:
            other = pick(rng, [each for each in graph.node if each.output])
            node.input[int(rng.integers(len(node.input)))] = other.output[0]
        case 7:
            begin = int(rng.integers(len(graph.node)))
            del graph.node[begin : begin + int(rng.integers(1, 20))]
        case 8:
            weight.data_type = int(rng.integers(0, 30))
        case 9:
            model.opset_import[0].version = pick(rng, (-1, 0, 1, 99, 10**6, 2**62))
        case 10:
            _repeat(rng, graph, pick(rng, ("raw_semantic", "raw_depth")))
        case _:
            for output in node.output:
                node.output[0] = output + "_" * int(pick(rng, (1, 5000)))


def _repeat(rng: Rng, graph: Any, name: str) -> None:
    """Make a raw output larger than its description: more channels, or thousands of pixels."""
    import onnx

    times = pick(rng, ([1, 2, 1, 1], [1, 1, 64, 64], [3, 1, 1, 1], [1, 1, 1, 0]))
    for place, node in enumerate(graph.node):
        if name in node.output:
            node.output[list(node.output).index(name)] = "before_it"
            graph.initializer.append(onnx.helper.make_tensor("times", _INT64, [4], times))
            tile = onnx.helper.make_node("Tile", ["before_it", "times"], [name])
            graph.node.insert(place + 1, tile)
            return
