"""A model as a file for other runtimes, written only when it says what PyTorch says.

The file holds everything from the image to the maps: normalisation, folded network, upsampling and
activations. Its sizes are fixed.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.atomic import write_bytes
from emu_perception.inference.engines.activation import (
    OTHERS,
    Normalization,
    activations,
    camera_tensor,
)
from emu_perception.inference.engines.base import fold
from emu_perception.inference.model_file import (
    HEADER_KEY,
    LoadedModel,
    ModelSpec,
)
from emu_perception.inference.predictor import OWN_NAMES

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}
"""Suffixes by name."""
TOLERANCE = 1e-3
"""Of every map, as a share of its largest value."""
AGREEMENT = 0.999
"""Share of the pixels whose class must be the same."""
OUTPUTS = {
    **OWN_NAMES,
    "mean": "depth",
    "variance": "depth_variance",
    "epistemic_variance": "depth_epistemic",
}
"""The engines' maps by the names of `Prediction`. Where the file's description has a `camera`,
depth is in its canonical unit: metres follow with f / f0, variances with its square."""
INPUTS = ("image", "camera")
"""The second one, fx, fy, cx, cy in pixels, only of networks that take rays."""
IMAGES = 2
"""On which a file is compared with PyTorch."""

Maps = dict[str, np.ndarray]


class ExportError(ValueError):
    """A model cannot be exported, or what was written is wrong."""


class ExportedModel(nn.Module):
    """Image to maps as one graph.

    Args:
        model: must have no sampled dropout.
        size: height and width of the image, multiples of 32, and of the maps.
        folded: as the file has it; the reference is not.
    """

    def __init__(self, model: LoadedModel, size: tuple[int, int], folded: bool = True) -> None:
        super().__init__()
        self.normalize = Normalization(model.spec)
        self.network = fold(model.network) if folded else model.network
        wanted = exported_maps(model)
        self.activations = nn.ModuleDict(activations(model.spec, wanted, size))
        self.eval()

    @property
    def names(self) -> list[str]:
        """Of the outputs, in order."""
        wanted = (name for module in self.activations.values() for name in module.wanted)  # type: ignore[union-attr]
        return [OUTPUTS.get(name, name) for name in wanted]

    def forward(self, image: Tensor, camera: Tensor | None = None) -> tuple[Tensor, ...]:
        """`(1, H, W, 3)` uint8 RGB, with rays also `(1, 4)` float32 fx, fy, cx, cy of the image, to
        the maps `(H, W)` that `names` names."""
        pixels = image.float().permute(0, 3, 1, 2)  # in this order: TensorRT only casts bytes
        outputs = self.network(self.normalize(pixels, camera)).by_task()
        return tuple(
            found for task, module in self.activations.items() for found in module(outputs[task])
        )


def exported_maps(model: LoadedModel) -> frozenset[str]:
    """All maps that the model has but the probabilities, by their names in the engines."""
    maps = {"classes", "confidence", "entropy", "mean", *OTHERS}
    if model.traits.depth_variance:
        maps.add("variance")
    if model.traits.epistemic:
        maps |= {"mutual_information", "epistemic_variance"}
    return frozenset(maps)


def export(
    model: LoadedModel, path: Path, format: str, size: tuple[int, int] | None = None
) -> dict[str, float]:
    """Write a file and compare it with PyTorch; a wrong one is deleted.

    Args:
        model: what to write.
        path: of the file; its folder is created.
        format: one of `FORMATS`. `tensorrt` is experimental: it is built by `trtexec` from the ONNX
            file, which is checked, and is not run itself.
        size: height and width of the image; by default the model's own.

    Returns:
        The largest difference of each map as a share of its largest value; for the labels the
        share of pixels with another one.

    Raises:
        ExportError: the model cannot be exported, or the file differs from PyTorch.
    """
    if format not in FORMATS:
        raise ExportError(f"format must be {', '.join(FORMATS)}, got '{format}'")
    if model.traits.stochastic:
        raise ExportError(f"{model.path}: a network that samples its dropout cannot be exported")
    size = size or model.spec.input_size
    if size[0] % 32 or size[1] % 32:
        raise ExportError(
            f"height and width must be multiples of 32, got {size[1]} x {size[0]} (width x height)"
        )
    if format == "tensorrt" and shutil.which("trtexec") is None:
        raise ExportError("TensorRT's trtexec is not on the PATH")
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "tensorrt":
        intermediate = path.with_suffix(".onnx")
        differences = export(model, intermediate, "onnx", size)
        _build_tensorrt(intermediate, path)
        return differences
    exported = ExportedModel(model, size)
    example = [torch.zeros(1, *size, 3, dtype=torch.uint8)]
    if model.spec.camera is not None and model.spec.rays:
        example.append(camera_tensor(model.spec.camera.assume(size[1], size[0])))
    write, load = _WRITERS[format], _LOADERS[format]
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes are fixed, as they should be
        write(exported, tuple(example), path, model.spec)
    reference = ExportedModel(model, size, folded=False)
    differences = compare(load(path, exported.names), reference, *example[1:])
    wrong = [
        f"{name} by {value:.2g}"
        for name, value in differences.items()
        if not value <= (1 - AGREEMENT if name in ("labels", "human_parts") else TOLERANCE)
    ]
    if wrong:
        for file in (path, path.with_suffix(".bin") if format == "openvino" else path):
            file.unlink(missing_ok=True)
        raise ExportError(f"{path} differed from PyTorch and was deleted: {', '.join(wrong)}")
    return differences


def compare(
    run: Callable[[dict[str, np.ndarray]], Maps], reference: ExportedModel, *camera: Tensor
) -> dict[str, float]:
    """The largest differences over a few images, as `export` returns them."""
    differences: dict[str, float] = {}
    height, width = next(iter(reference.activations.values())).size  # type: ignore[misc]
    generator = np.random.default_rng(0)
    for _ in range(IMAGES):
        image = generator.integers(0, 256, (1, height, width, 3), np.uint8)
        with torch.inference_mode():
            maps = reference(torch.from_numpy(image), *camera)
        expected = dict(zip(reference.names, maps, strict=True))
        given = (image, *(each.numpy() for each in camera))
        found = run(dict(zip(INPUTS, given, strict=False)))
        for name, value in expected.items():
            difference = _difference(name, found[name], value.numpy())
            differences[name] = max(differences.get(name, 0.0), difference)
    return differences


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if name in ("labels", "human_parts"):
        return float((found != expected).mean())
    scale = max(float(np.abs(expected).max()), 1e-6)
    difference = np.abs(found - expected).max() / scale
    return float(difference) if np.isfinite(difference) else float("inf")


def _write_onnx(
    module: ExportedModel, example: tuple[Tensor, ...], path: Path, spec: ModelSpec
) -> None:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module, example, input_names=list(INPUTS[: len(example)]), output_names=module.names,
        dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    for key, value in _metadata(spec).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(proto)
    write_bytes(path, proto.SerializeToString())


def _load_onnx(path: Path, names: list[str]) -> Callable[[dict[str, np.ndarray]], Maps]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, np.ndarray]) -> Maps:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def _write_openvino(
    module: ExportedModel, example: tuple[Tensor, ...], path: Path, spec: ModelSpec
) -> None:
    openvino = _openvino()
    shapes = [list(each.shape) for each in example]
    converted = openvino.convert_model(module, example_input=example, input=shapes)
    for given, name in zip(converted.inputs, INPUTS, strict=False):
        given.tensor.set_names({name})
    for output, name in zip(converted.outputs, module.names, strict=True):
        output.tensor.set_names({name})
    for key, value in _metadata(spec).items():
        converted.set_rt_info(value, [key])
    openvino.save_model(converted, str(path), compress_to_fp16=False)


def _load_openvino(path: Path, names: list[str]) -> Callable[[dict[str, np.ndarray]], Maps]:
    compiled = _openvino().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: dict[str, np.ndarray]) -> Maps:
        found: Mapping[Any, np.ndarray] = compiled(inputs)
        return {name: found[compiled.output(name)] for name in names}

    return run


def _openvino() -> Any:
    # As in the engine: no telemetry.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _metadata(spec: ModelSpec) -> dict[str, str]:
    """What a user of the file must know: classes, canonical focal length, depth range, licence."""
    return {HEADER_KEY: spec.model_dump_json()}


def _build_tensorrt(onnx_file: Path, path: Path) -> None:
    command = ["trtexec", f"--onnx={onnx_file}", f"--saveEngine={path}", "--fp16"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ExportError(f"trtexec failed: {(done.stdout + done.stderr)[-1000:]}")


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino}
_LOADERS = {"onnx": _load_onnx, "openvino": _load_openvino}
