"""Deployment files: one ONNX graph from image and camera to maps, kept only if it equals PyTorch.

`deployment` describes the graph's inputs, outputs and named values. torch writes the part from the
network's pixels to the maps, from the same modules that the PyTorch engine runs; `prelude` is the
part before it.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.atomic import replacing, write_bytes
from emu_perception.camera import Intrinsics
from emu_perception.inference.deployment import CAMERA, FEATURES, PIXELS, RAW
from emu_perception.inference.engines.activation import (
    NetworkWithFeatures,
    activation_maps,
    activations,
    finish_maps,
)
from emu_perception.inference.engines.base import fold
from emu_perception.inference.model_checks import DIGEST
from emu_perception.inference.model_file import HEADER_KEY, DeployedModel, LoadedModel
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.inference.onnx_file import graph_digest
from emu_perception.inference.predictor import DOMAIN, Predictor, map_settings
from emu_perception.inference.prelude import FOCAL, MAP_SHAPE, prelude
from emu_perception.networks.decoder import separate_decoders
from emu_perception.tasks import byte_maps

OPSET = 18
TOLERANCE = 1e-3
"""Largest difference of a map, as a fraction of its largest value."""
AGREEMENT = 0.999
"""Smallest fraction of pixels with the same label."""
BF16_LIMITS = {"labels": 0.005, "depth": 0.01, "uncertainty": 0.01}
"""Largest differences with a network in bf16: fraction of other labels; mean relative depth; mean
of an uncertainty, entropies as fractions of ln C, standard deviations relative to the depth."""
CHECKS: tuple[tuple[tuple[float, float], float | None, float], ...] = (
    ((1.25, 1.1), 0.9, 1.0),
    ((0.75, 1.3), 0.55, 0.5),
    ((1.0, 0.7), None, 1.3),
)
"""Height and width of the image by the network's, focal length / image width (None: unknown camera)
and size of the maps by the image's, of each check."""

Maps = dict[str, np.ndarray]
Run = Callable[[np.ndarray, np.ndarray, tuple[int, int]], Maps]
"""Image, fx, fy, cx, cy (zeros: unknown) and size of the maps to the maps."""


class ExportError(ValueError):
    """A model that cannot be exported, or a file that differs from PyTorch."""


class DeploymentGraph(nn.Module):
    """From the network's pixels to maps, as torch exports it.

    Args:
        model: must not sample dropout.
    """

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        spec = model.spec
        self.network = NetworkWithFeatures(separate_decoders(fold(model.network)), spec)
        self.maps = exported_maps(model)
        self._spec, self._settings = spec, map_settings(spec)
        self.ends = [f"{RAW}{task}" for task in spec.tasks]
        if self.network.has_features:
            self.ends.append(FEATURES)
        self.eval()

    def forward(
        self, pixels: Tensor, camera: Tensor, map_shape: Tensor, focal: Tensor
    ) -> tuple[Tensor, ...]:
        """To the ends of the network and the maps, in the order of `ends` and `maps`.

        Args:
            pixels: `(1, 3, h, w)` float32, 0–255.
            camera: `(1, 4)`, see `deployment.CAMERA`.
            map_shape: `(H, W)`, only its shape counts.
            focal: `(2,)`, see `FOCAL`.
        """
        ends = self.network(pixels, camera if self._spec.rays else None)
        raw = dict(zip(self._spec.tasks, ends, strict=False))
        wanted = activation_maps(self.maps, self._settings)
        modules = activations(self._spec, wanted, (map_shape.shape[0], map_shape.shape[1]))
        found = {
            name: value
            for task, module in modules.items()
            for name, value in zip(module.wanted, module(raw[task]), strict=True)
        }
        maps = finish_maps(found, self.maps, self._settings, focal[0], focal[1])
        return (*ends, *(maps[name] for name in self.maps))


def exported_maps(model: LoadedModel) -> list[str]:
    """Names of the `Prediction` fields that the model fills, without the probabilities."""
    return sorted(Predictor.maps_of(model.spec, model.traits) - {"probabilities", DOMAIN})


def export(model: LoadedModel, path: Path, images: Iterable[np.ndarray] = ()) -> dict[str, float]:
    """Write a deployment file and compare it with PyTorch; a wrong one is not kept.

    Args:
        model: what to write.
        path: of the file; its folder is created.
        images: uint8 RGB `(H, W, 3)`, such as the model will see. With some, the network is also
            compared in bf16, and the header notes whether `BF16_LIMITS` hold.

    Returns:
        The largest difference of each map as a fraction of its largest value; for labels the
        fraction of pixels with another one. With images also `bf16 labels`, `bf16 depth` and
        `bf16 uncertainty`, if that was within the limits.

    Raises:
        ExportError: the model cannot be exported, or the file differs from PyTorch.
    """
    if model.traits.stochastic:
        raise ExportError(f"{model.path}: a network that samples its dropout cannot be exported")
    half = reduced_precision(model, list(images))
    holds = bool(half) and all(half[name] <= limit for name, limit in BF16_LIMITS.items())
    spec = model.spec.model_copy(
        update={
            "traits": model.traits,
            "checked_precisions": ("fp32", "bf16") if holds else ("fp32",),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        unchecked = partial.with_name(f"{partial.name}.onnx")
        try:
            write_graph(model, unchecked, spec)
            found = compare(model, DeployedModel(spec, unchecked))
            wrong = [
                f"{name} by {value:.2g}"
                for name, value in found.items()
                if not value <= (1 - AGREEMENT if name in byte_maps() else TOLERANCE)
            ]
            if wrong:
                raise ExportError(
                    f"{path} is not written: it differs from PyTorch in {', '.join(wrong)}"
                )
            unchecked.replace(partial)
        finally:
            unchecked.unlink(missing_ok=True)
    return found | ({f"bf16 {name}": value for name, value in half.items()} if holds else {})


def reduced_precision(model: LoadedModel, images: Sequence[np.ndarray]) -> dict[str, float]:
    """How much a model differs in bf16, by the names of `BF16_LIMITS`; nothing without images."""
    if not images:
        return {}
    # The engine converts weights where they are.
    copied = LoadedModel(copy.deepcopy(model.network), model.spec, model.path)
    full = Predictor(model, "cpu", "fp32", "pytorch")
    half = Predictor(copied, "cpu", "bf16", "pytorch")
    found: dict[str, list[float]] = {name: [] for name in BF16_LIMITS}
    for image in images:
        a, b = full.predict(image), half.predict(image)
        if a.labels is not None and b.labels is not None:
            found["labels"].append(float((a.labels != b.labels).mean()))
        if a.semantic_entropy is not None and b.semantic_entropy is not None:
            difference = np.abs(a.semantic_entropy - b.semantic_entropy).mean()
            found["uncertainty"].append(float(difference) / math.log(len(full.label_set or "ab")))
        if a.depth is not None and b.depth is not None:
            found["depth"].append(float(np.nanmean(np.abs(a.depth - b.depth) / a.depth)))
            if a.depth_std is not None and b.depth_std is not None:
                difference = np.nanmean(np.abs(a.depth_std - b.depth_std) / a.depth)
                found["uncertainty"].append(float(difference))
    return {name: max(values, default=0.0) for name, values in found.items()}


def compare(model: LoadedModel, deployed: DeployedModel) -> dict[str, float]:
    """The largest differences over `CHECKS`, as `export` returns them.

    The whole graph runs in ONNX Runtime, its network in OpenVINO with our own resampling and maps;
    both are compared with PyTorch on the unfolded network.
    """
    reference = Predictor(_unfolded(model), "cpu", "fp32", "pytorch")
    runs: list[Run] = [_whole_graph(deployed), _predictor(deployed)]
    differences: dict[str, float] = {}
    for image, camera, size in _checks(model.spec):
        intrinsics = None if not camera.any() else _intrinsics(image, camera)
        expected = reference.predict(image, intrinsics, output_size=size)
        for run in runs:
            found = run(image, camera, size)
            for name in exported_maps(model):
                difference = _difference(name, found[name], expected.get(name))
                differences[name] = max(differences.get(name, 0.0), difference)
    return differences


def _checks(spec: ModelSpec) -> Iterable[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    generator = np.random.default_rng(0)
    for (rows, columns), focal_ratio, zoom in CHECKS:
        height, width = round(rows * spec.input_size[0]), round(columns * spec.input_size[1])
        camera = np.zeros(4, np.float32)
        if focal_ratio is not None:
            f = focal_ratio * width
            camera = np.array([f, 1.02 * f, 0.48 * width, 0.53 * height], np.float32)
        size = (round(height * zoom), round(width * zoom))
        yield _smooth_image(generator, height, width), camera, size


def _smooth_image(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured noise at several scales: natural images have their energy in coarse structure."""
    total = np.zeros((1, 3, height, width), np.float32)
    for level in (4, 12, 40):
        noise = generator.normal(size=(1, 3, level, level)).astype(np.float32) * 160 / level**0.5
        total += F.interpolate(torch.from_numpy(noise), (height, width), mode="bicubic").numpy()
    return (total[0].transpose(1, 2, 0) + 110).clip(0, 255).astype(np.uint8)


def _unfolded(model: LoadedModel) -> LoadedModel:
    """The same model, which the reference runs as it was trained."""
    network = copy.copy(model.network)
    network.fold = lambda: network  # type: ignore[assignment]
    return LoadedModel(network, model.spec, model.path)


def _intrinsics(image: np.ndarray, camera: np.ndarray) -> Intrinsics:
    fx, fy, cx, cy = map(float, camera)
    return Intrinsics(fx, fy, cx, cy, image.shape[1], image.shape[0])


def _whole_graph(deployed: DeployedModel) -> Run:
    """The file as others run it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(deployed.path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> Maps:
        given = {"image": image, "camera": camera, "output_size": np.array(size, np.int64)}
        return dict(zip(names, session.run(names, given), strict=True))

    return run


def _predictor(deployed: DeployedModel) -> Run:
    """The file as this package runs it."""
    predictor = Predictor(deployed, "cpu", "fp32")

    def run(image: np.ndarray, camera: np.ndarray, size: tuple[int, int]) -> Maps:
        intrinsics = None if not camera.any() else _intrinsics(image, camera)
        found = predictor.predict(image, intrinsics, output_size=size)
        return {name: found.get(name) for name in predictor.available_maps}

    return run


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    """Difference as a fraction of the largest value; infinite if shapes, types or NaN differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return math.inf
    if name in byte_maps():
        return float((found != expected).mean())
    valid = np.isfinite(expected)
    both = valid & np.isfinite(found)
    # A pixel at a class's border or at the range's end may be valid in one of them.
    if (valid != np.isfinite(found)).mean() > 1 - AGREEMENT:
        return math.inf
    if not both.any():
        return 0.0
    scale = max(float(np.abs(expected[both]).max()), 1e-6)
    return float(np.abs(found[both] - expected[both]).max()) / scale


def write_graph(model: LoadedModel, path: Path, spec: ModelSpec) -> None:
    """Write a deployment file without comparing it; `spec` becomes its description."""
    import onnx

    graph = DeploymentGraph(model)
    height, width = spec.input_size
    example = (
        torch.zeros(1, 3, height, width),
        torch.ones(1, 4),
        torch.zeros(97, 143),
        torch.ones(2),
    )
    free = {PIXELS: {2: "network_height", 3: "network_width"}, MAP_SHAPE: {0: "rows", 1: "columns"}}
    # Not torch.export: its symbolic shapes take hours on a network with many strides.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph, example, str(path), input_names=[PIXELS, CAMERA, MAP_SHAPE, FOCAL],
            output_names=[*graph.ends, *graph.maps], dynamic_axes=free, opset_version=OPSET,
            dynamo=False,
        )  # fmt: skip
    whole = onnx.load(str(path))
    _prepend(whole.graph, onnx.parser.parse_graph(prelude(spec)))
    _make_internal(whole.graph, [end for end in graph.ends if end != FEATURES])
    onnx.checker.check_model(whole)
    write_bytes(path, whole.SerializeToString())
    values = {**spec.model_dump(mode="json"), DIGEST: graph_digest(path)}
    entry = whole.metadata_props.add()
    entry.key, entry.value = HEADER_KEY, json.dumps(values, ensure_ascii=False)
    write_bytes(path, whole.SerializeToString())


def _prepend(graph: Any, first: Any) -> None:
    """Run another graph first, whose outputs are this one's inputs by name."""
    nodes = [*first.node, *graph.node]
    infos = [*first.output, *graph.value_info]
    del graph.input[:], graph.node[:], graph.value_info[:]
    graph.input.extend(first.input)
    graph.node.extend(nodes)
    graph.value_info.extend(infos)


def _make_internal(graph: Any, names: list[str]) -> None:
    """Outputs to named values inside the graph."""
    outputs = list(graph.output)
    del graph.output[:]
    graph.output.extend(each for each in outputs if each.name not in names)
    graph.value_info.extend(each for each in outputs if each.name in names)
