"""OpenVINO: the default on a CPU.

It runs the part of a deployment file between resampled pixels and raw outputs, or a network
converted from torch, compiled once per size. Resampling and maps are computed by NumPy and OpenCV.
Sizes that come and go are run without being compiled: see `CompiledForms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import openvino
from openvino import opset13

from emu_perception.allocator import give_back_memory
from emu_perception.inference.deployment import CAMERA, PIXELS, network_outputs
from emu_perception.inference.engines.base import Frame
from emu_perception.inference.engines.forms import CompiledForms
from emu_perception.inference.engines.openvino_core import (
    compile_settings,
    core,
)
from emu_perception.inference.model_file import DeployedModel, LoadedModel
from emu_perception.inference.model_names import ModelFileError
from emu_perception.inference.postprocessing import MapSettings, compute_maps
from emu_perception.inference.resampling import antialiased
from emu_perception.interrupt import interruptible

KEPT_SIZES = 4
"""Compiled networks that are kept, one per size; the least recently used goes first."""


class Source(Protocol):
    """Source of the networks to compile."""

    @property
    def outputs(self) -> Sequence[str]:
        """Tasks, and `features`, in the order of the network's outputs."""

    def compile(self, size: tuple[int, int]) -> Any:
        """The network for pixels `(1, 3, h, w)` float32 of a size, with rays also for a camera."""
        ...

    def run_uncompiled(self, given: Sequence[np.ndarray]) -> Mapping[int, np.ndarray]:
        """The outputs by index for inputs of any size, slower than by a form for that size."""
        ...

    def close(self) -> None:
        """Release what `run_uncompiled` keeps."""
        ...


class OpenVINOEngine:
    """Runs a network with OpenVINO on the CPU."""

    def __init__(self, model: LoadedModel | DeployedModel, device: str, precision: str) -> None:
        if precision == "fp16":
            raise ValueError("the engine 'openvino' runs fp32 or bf16 on a CPU, not fp16")
        self._rays = model.spec.rays
        self._source: Source
        if isinstance(model, DeployedModel):
            self._source = _DeployedSource(model, precision)
        else:
            from emu_perception.inference.engines.converted import ConvertedSource

            self._source = ConvertedSource(model, precision)
        self._requests: CompiledForms[Any] = CompiledForms(KEPT_SIZES)

    def run(
        self, frame: Frame, wanted: frozenset[str], settings: MapSettings
    ) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        return compute_maps(self._raw(frame), frame.output_size, wanted, settings)

    def close(self) -> None:
        """Release the compiled networks."""
        self._requests.clear()
        self._source.close()

    def _raw(self, frame: Frame) -> dict[str, np.ndarray]:
        """Raw outputs by task, in memory that the next call overwrites."""
        given = [antialiased(frame.image, frame.network_size)]
        if self._rays:
            assert frame.camera is not None, "a network that takes rays needs a camera"
            given.append(frame.camera.array())
        size = frame.network_size
        request = self._requests.get(size, lambda: self._make_request(size))
        if request is None:
            found = self._source.run_uncompiled(given)
        else:
            found = request.infer(given, share_inputs=True, share_outputs=True)
        return {name: found[index] for index, name in enumerate(self._source.outputs)}

    def _make_request(self, size: tuple[int, int]) -> Any:
        request = interruptible(lambda: self._source.compile(size)).create_infer_request()
        give_back_memory()
        return request


class _DeployedSource:
    """The network of a deployment file."""

    def __init__(self, model: DeployedModel, precision: str) -> None:
        self._model, self._settings = model, compile_settings(precision)
        self._any_size: Any = None
        try:
            whole = core().read_model(model.path)
        except RuntimeError as error:
            raise ModelFileError(f"{model.path} cannot be read by OpenVINO: {error}") from error
        values = {n: out for op in whole.get_ops() for out in op.outputs() for n in out.get_names()}
        ends = {k: v for k, v in network_outputs(model.spec.tasks).items() if v in values}
        self.outputs = list(ends)
        shapes = {PIXELS: [1, 3, -1, -1]} | ({CAMERA: [1, 4]} if model.spec.rays else {})
        try:
            parameters = [_as_input(values[name], shape) for name, shape in shapes.items()]
            results = [opset13.result(values[end]) for end in ends.values()]
            self._network = openvino.Model(results, parameters)
        except (KeyError, RuntimeError) as error:
            raise ModelFileError(
                f"{model.path} lacks the network's named values ({error}): write it again with "
                "`emu export`"
            ) from error

    def compile(self, size: tuple[int, int]) -> Any:
        """See `Source.compile`."""
        fixed = self._network.clone()
        try:
            fixed.reshape({fixed.inputs[0]: [1, 3, *size]})
            shapes = [list(output.get_shape()) for output in fixed.outputs]
        except RuntimeError as error:
            raise ModelFileError(
                f"{self._model.path}: the network cannot run at {size[1]} x {size[0]}: {error}"
            ) from error
        # Before it is compiled, which takes memory for the outputs.
        self._model.check_outputs(dict(zip(self.outputs, shapes, strict=True)), size)
        return self._compile(fixed)

    def _compile(self, network: openvino.Model) -> Any:
        try:
            return core().compile_model(network, "CPU", self._settings)
        except RuntimeError as error:
            raise ModelFileError(f"{self._model.path} cannot be compiled: {error}") from error

    def run_uncompiled(self, given: Sequence[np.ndarray]) -> Mapping[int, np.ndarray]:
        """See `Source.run_uncompiled`: one form serves all sizes."""
        if self._any_size is None:
            self._any_size = self._compile(self._network).create_infer_request()
        found: Mapping[int, np.ndarray] = self._any_size.infer(
            list(given), share_inputs=True, share_outputs=True
        )
        shapes = {name: found[index].shape for index, name in enumerate(self.outputs)}
        height, width = given[0].shape[-2:]
        self._model.check_outputs(shapes, (height, width))
        return found

    def close(self) -> None:
        """See `Source.close`."""
        self._any_size = None


def _as_input(value: Any, shape: list[int]) -> Any:
    """A new input in the place of a value inside a graph."""
    parameter = opset13.parameter(shape, np.float32)
    for target in list(value.get_target_inputs()):
        target.replace_source_output(parameter.output(0))
    return parameter
