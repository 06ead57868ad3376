"""ONNX Runtime: a deployment file on a CPU, or a GPU through its CUDA or TensorRT providers."""

from __future__ import annotations

import numpy as np
import onnxruntime

from emu_perception.inference.deployment import CAMERA, PIXELS, network_outputs
from emu_perception.inference.engines.base import Frame
from emu_perception.inference.model_file import DeployedModel
from emu_perception.inference.model_names import ModelFileError
from emu_perception.inference.postprocessing import MapSettings, compute_maps
from emu_perception.inference.resampling import antialiased
from emu_perception.inference.threads import thread_count

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution provider by device."""


class ONNXRuntimeEngine:
    """Runs the network of a deployment file; resampling and maps are computed on the CPU.

    Args:
        model: a deployment file.
        device: `cpu`, `cuda` or `tensorrt`, with an index such as `cuda:1` on several GPUs.
        precision: `fp32`; TensorRT also `fp16`.

    Raises:
        ValueError: ONNX Runtime lacks the provider, or the provider lacks the precision.
    """

    def __init__(self, model: DeployedModel, device: str, precision: str) -> None:
        kind, _, index = device.partition(":")
        if PROVIDERS[kind] not in onnxruntime.get_available_providers():
            raise ValueError(
                f"device is '{device}', but this ONNX Runtime has no {PROVIDERS[kind]}: "
                "install onnxruntime-gpu instead of onnxruntime"
            )
        if precision == "bf16" or (precision == "fp16" and kind != "tensorrt"):
            raise ValueError(f"the engine 'onnxruntime' on '{kind}' runs fp32, not {precision}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 4  # errors are raised; warnings cite the file without limits
        settings = {"device_id": index or "0"} if kind != "cpu" else {}
        if kind == "tensorrt":
            settings["trt_fp16_enable"] = str(precision == "fp16")
        providers = [(PROVIDERS[kind], settings)]
        if kind != "cpu":
            providers.append((PROVIDERS["cpu"], {}))
        self._model = model
        try:
            network, self._outputs = _network(model)
            self._session = onnxruntime.InferenceSession(network, options, providers=providers)
        except Exception as error:  # both packages have errors of their own for each cause
            raise ModelFileError(f"{model.path} cannot be read by ONNX Runtime: {error}") from error
        self._inputs = {each.name for each in self._session.get_inputs()}

    def run(
        self, frame: Frame, wanted: frozenset[str], settings: MapSettings
    ) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        return compute_maps(self._raw(frame), frame.output_size, wanted, settings)

    def close(self) -> None:
        """See `Engine.close`."""
        del self._session

    def _raw(self, frame: Frame) -> dict[str, np.ndarray]:
        given = {PIXELS: antialiased(frame.image, frame.network_size)}
        if CAMERA in self._inputs:
            assert frame.camera is not None, "a network that takes rays needs a camera"
            given[CAMERA] = frame.camera.array()
        try:
            found = self._session.run(None, given)
        except Exception as error:
            raise ModelFileError(
                f"{self._model.path}: ONNX Runtime cannot run the network: {error}"
            ) from error
        raw = dict(zip(self._outputs, found, strict=True))
        self._model.check_outputs({k: v.shape for k, v in raw.items()}, frame.network_size)
        return raw


def _network(model: DeployedModel) -> tuple[bytes, list[str]]:
    """The part of the file between resampled pixels and raw outputs, and what these are."""
    import onnx
    from onnx.utils import Extractor

    whole = onnx.load(str(model.path))
    values = {each.name for each in (*whole.graph.value_info, *whole.graph.output)}
    outputs = {k: v for k, v in network_outputs(model.spec.tasks).items() if v in values}
    inputs = [PIXELS, CAMERA] if model.spec.rays else [PIXELS]
    part = Extractor(whole).extract_model(inputs, list(outputs.values()))
    return bytes(part.SerializeToString()), list(outputs)
