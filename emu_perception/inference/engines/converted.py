"""Networks converted from torch to OpenVINO, without a file in between.

For models whose weights are at hand: `.safetensors` files, evaluation and frozen networks while
training. Their compiled forms are kept on disk, as conversion takes seconds.
"""

from __future__ import annotations

import io
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception import __version__
from emu_perception.allocator import give_back_memory
from emu_perception.inference.deployment import FEATURES
from emu_perception.inference.engines.activation import NetworkWithFeatures
from emu_perception.inference.engines.base import fold
from emu_perception.inference.engines.cache import EngineCache
from emu_perception.inference.engines.openvino_core import (
    compile_settings,
    core,
)
from emu_perception.inference.model_file import LoadedModel
from emu_perception.networks.decoder import separate_decoders
from emu_perception.networks.raw_outputs import RawOutputs


class ConvertedSource:
    """The network of a `.safetensors` file; see `openvino.Source`."""

    def __init__(self, model: LoadedModel, precision: str) -> None:
        self._model, self._settings = model, compile_settings(precision)
        self._eager: NetworkWithFeatures | None = None
        self._cache = EngineCache(
            model,
            runtime=openvino.get_version(),
            package=__version__,
            torch=torch.__version__,
            device=core().get_property("CPU", "FULL_DEVICE_NAME"),
            platform=platform.machine(),
            settings=self._settings,
        )
        if not self._cache.holds("network"):
            _ = model.network  # weights that do not fit are refused here
        # Whether there are features is known once the network is built; they come last.
        self.outputs = [*model.spec.tasks, FEATURES]

    def compile(self, size: tuple[int, int]) -> Any:
        """See `Source.compile`."""
        name = f"network-{size[0]}x{size[1]}"
        compiled = self._from_cache(name)
        if compiled is None:
            compiled = self._compile_anew(name, size)
        self.outputs = self.outputs[: len(compiled.outputs)]
        return compiled

    def run_uncompiled(self, given: Sequence[np.ndarray]) -> Mapping[int, np.ndarray]:
        """See `Source.run_uncompiled`: each traced form leaves memory behind in torch."""
        if self._eager is None:
            self._eager = NetworkWithFeatures(fold(self._model.network), self._model.spec).eval()
        with torch.inference_mode():
            found = self._eager(*map(torch.from_numpy, given))
        return {index: each.numpy() for index, each in enumerate(found)}

    def close(self) -> None:
        """See `Source.close`."""
        self._eager = None

    def _compile_anew(self, name: str, size: tuple[int, int]) -> Any:
        network = separate_decoders(fold(self._model.network))
        example = [torch.zeros(1, 3, *size)]
        if self._model.spec.rays:
            example.append(torch.ones(1, 4))
        converted = _convert(NetworkWithFeatures(network, self._model.spec), *example)
        compiled = core().compile_model(converted, "CPU", self._settings)
        self._cache.write(name, lambda: bytes(compiled.export_model().getvalue()))
        return compiled

    def _from_cache(self, name: str) -> Any:
        kept = self._cache.read(name)
        if kept is None:
            return None
        try:
            return core().import_model(io.BytesIO(kept), "CPU", self._settings)
        except Exception:  # its reader raises UnicodeDecodeError, too: made anew
            self._cache.delete(name)
            return None


def compile_forward(network: nn.Module, shape: tuple[int, ...]) -> Callable[[Tensor], RawOutputs]:
    """A folded network as a function of normalised batches of one shape, on the CPU."""
    example = torch.zeros(shape)
    with torch.no_grad():
        tasks = list(network(example))
    settings = {**compile_settings("fp32"), "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = _convert(_Forward(separate_decoders(network)), example)
    request = core().compile_model(model, "CPU", settings).create_infer_request()
    give_back_memory()

    def forward(image: Tensor) -> RawOutputs:
        given = [image.contiguous().numpy()]
        results = request.infer(given, share_inputs=True, share_outputs=True)
        # The next batch overwrites the results.
        return {task: torch.from_numpy(results[i].copy()) for i, task in enumerate(tasks)}

    return forward


class _Forward(nn.Module):
    """A network alone, its raw outputs in the order of the tasks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(image).values())


def _convert(module: nn.Module, *example: Tensor) -> openvino.Model:
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing fixes the sizes, as it should: one compiled form per size.
        warnings.simplefilter("ignore")
        return openvino.convert_model(
            module.eval(), example_input=example, input=[list(each.shape) for each in example]
        )
