"""OpenVINO: the default on a CPU.

The network is compiled once per input size; what turns raw outputs into maps is compiled once per
set of wanted maps, which takes a fraction of a second, so a change of subscriptions is cheap. Sizes
that come and go are computed by PyTorch: see `CompiledForms`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import platform
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from emu_perception import __version__
from emu_perception.camera import Intrinsics
from emu_perception.inference.engines.activation import (
    SEMANTIC,
    Normalization,
    SemanticActivation,
    activations,
    camera_tensor,
    prepare,
    requested,
)
from emu_perception.inference.engines.banded import (
    SemanticBand,
    assemble,
    cut,
)
from emu_perception.inference.engines.base import fold
from emu_perception.inference.engines.cache import EngineCache
from emu_perception.inference.engines.forms import CompiledForms
from emu_perception.inference.model_file import LoadedModel
from emu_perception.interrupt import interruptible
from emu_perception.networks.decoder import separate_decoders
from emu_perception.networks.raw_outputs import RawOutputs

# Where its telemetry package can be imported, OpenVINO reports every import and conversion over the
# network, from a forked process each; a robot does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

_Maps: TypeAlias = Callable[[np.ndarray], list[np.ndarray]]
"""Raw outputs of a task to its maps."""
NETWORK = "network"
"""What the kept forms of networks are called by, before their sizes."""
KEPT_SIZES = 4
"""Compiled networks that are kept, one per size; the least recently used goes first."""
KEPT_MAPS = 3
"""Compiled forms of each task's maps that are kept. At 640 x 480 one of 40 classes takes 90 MB."""


@functools.cache
def _core() -> openvino.Core:
    """The process's one core, which it keeps.

    The CPU plugin of every core replaces the stack of the process's signal handlers and puts back
    the one before it. Cores that end in another order than they began leave the main thread without
    one: the next signal that has a handler, such as Ctrl-C, ends the process.
    """
    return openvino.Core()


def _settings(precision: str) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        # The threads that torch was given, so that one setting rules both.
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _convert(module: nn.Module, *example: Tensor) -> openvino.Model:
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing fixes the sizes, as it should: one compiled form per size.
        warnings.simplefilter("ignore")
        return openvino.convert_model(
            module.eval(), example_input=example, input=[list(each.shape) for each in example]
        )


def compile_forward(network: nn.Module, shape: tuple[int, ...]) -> Callable[[Tensor], RawOutputs]:
    """A folded network as a function of normalised batches of one shape, on the CPU."""
    example = torch.zeros(shape)
    with torch.no_grad():
        fields = [i for i, raw in enumerate(network(example)) if raw is not None]
    model = _convert(_Forward(separate_decoders(network)), example)
    request = _Request(_core().compile_model(model, "CPU", _settings("f32")))
    _give_back_memory()

    def forward(image: Tensor) -> RawOutputs:
        found: list[Tensor | None] = [None] * len(RawOutputs._fields)
        for index, array in zip(fields, request(image.contiguous().numpy()), strict=True):
            found[index] = torch.from_numpy(array.copy())  # the next batch overwrites it
        return RawOutputs(*found)

    return forward


class OpenVINOEngine:
    """Runs a network's folded form with OpenVINO on the CPU."""

    def __init__(self, model: LoadedModel, device: torch.device, precision: str) -> None:
        if precision == "fp16":
            raise ValueError("the engine 'openvino' runs fp32 or bf16 on a CPU, not fp16")
        self._spec, self._device = model.spec, device
        self._core = _core()
        self._settings = _settings("bf16" if precision == "bf16" else "f32")
        self._cache = EngineCache(
            model,
            runtime=openvino.get_version(),
            package=__version__,
            torch=torch.__version__,
            device=self._core.get_property("CPU", "FULL_DEVICE_NAME"),
            platform=platform.machine(),
            settings=self._settings,
        )
        self._model: LoadedModel | None = model
        if not self._cache.holds(NETWORK):
            _ = model.network  # weights that do not fit are refused here
        self._networks: CompiledForms[_Request] = CompiledForms(KEPT_SIZES)
        self._maps: CompiledForms[_Maps] = CompiledForms(KEPT_MAPS * len(model.spec.tasks))
        self._eager: _Network | None = None

    def run(
        self,
        image: np.ndarray,
        network_size: tuple[int, int],
        output_size: tuple[int, int],
        wanted: frozenset[str],
        camera: Intrinsics | None = None,
    ) -> dict[str, Tensor]:
        """See `Engine.run`."""
        x = prepare(image, network_size, self._device).contiguous().numpy()
        given = [x]
        if self._spec.rays:
            assert camera is not None, "a network that takes rays needs a camera"
            given.append(camera_tensor(camera).numpy())
        outputs = self._run_network(network_size, given)
        raw = dict(zip(self._spec.tasks, outputs, strict=True))
        maps: dict[str, Tensor] = {}
        for task, names in requested(self._spec, wanted).items():
            compiled = _rounded_up(names) if _is_banded(task, names, raw[task].shape) else names
            results = self._run_maps(task, compiled, raw[task], network_size, output_size)
            for name, result in zip(compiled, results, strict=True):
                if name in names:
                    maps[name] = torch.from_numpy(result)
        return maps

    def close(self) -> None:
        """Release the compiled networks."""
        self._model = self._eager = None
        self._networks.clear()
        self._maps.clear()

    def _run_network(self, size: tuple[int, int], arrays: list[np.ndarray]) -> list[np.ndarray]:
        compiled = self._networks.get(size, lambda: self._compile_network(size))
        if compiled is not None:
            return compiled(*arrays)
        if self._eager is None:
            assert self._model is not None, "the engine was closed"
            self._eager = _Network(fold(self._model.network), self._spec)
        with torch.inference_mode():
            return [raw.numpy() for raw in self._eager(*map(torch.from_numpy, arrays))]

    def _run_maps(
        self,
        task: str,
        names: tuple[str, ...],
        raw: np.ndarray,
        network_size: tuple[int, int],
        size: tuple[int, int],
    ) -> list[np.ndarray]:
        compiled = self._maps.get(
            (task, names, network_size, size),
            lambda: self._compile_maps(task, names, raw.shape, network_size, size),
        )
        if compiled is not None:
            return compiled(raw)
        activation = activations(self._spec, frozenset(names), size)[task]
        with torch.inference_mode():
            return [each.numpy() for each in activation(torch.from_numpy(raw))]

    def _compile_network(self, size: tuple[int, int]) -> _Request:
        example = [torch.zeros((1, 3, *size), dtype=torch.uint8)]
        if self._spec.rays:
            example.append(torch.ones(1, 4))
        return self._compile(f"{NETWORK}-{_name(size)}", self._network, *example)

    def _compile_maps(
        self,
        task: str,
        names: tuple[str, ...],
        shape: tuple[int, ...],
        network_size: tuple[int, int],
        size: tuple[int, int],
    ) -> _Maps:
        activation = activations(self._spec, frozenset(names), size)[task]
        sizes = "-".join(map(_name, (network_size, size)))
        if isinstance(activation, SemanticActivation) and _is_banded(task, names, shape):
            bands = cut(shape[-2], size[0])
            band = SemanticBand(activation, bands)
            given: list[Tensor] = [torch.zeros(1, shape[-3], bands.raw_rows, shape[-1])]
            given += [torch.from_numpy(each) for each in bands.bands[0].blend]
            request = self._compile(f"{task}_band-{sizes}-{'-'.join(names)}", lambda: band, *given)
            repeat = request.on_own_arrays()
            return lambda raw: assemble(raw, bands, size, repeat)
        request = self._compile(
            f"{task}-{sizes}-{'-'.join(names)}", lambda: activation, torch.zeros(shape)
        )
        # The next frame overwrites the request's own memory.
        return lambda raw: [each.copy() for each in request(raw)]

    def _network(self) -> nn.Module:
        """Its form for OpenVINO; where a compiled one was kept, nobody asks for it."""
        assert self._model is not None, "the engine was closed"
        return _Network(separate_decoders(fold(self._model.network)), self._spec)

    def _compile(self, name: str, make: Callable[[], nn.Module], *example: Tensor) -> _Request:
        """From the cache where it is there."""

        def compiled_form() -> Any:
            found = self._from_cache(name)
            return self._compile_anew(name, make(), example) if found is None else found

        compiled = interruptible(compiled_form)
        request = _Request(compiled)
        _give_back_memory()
        return request

    def _from_cache(self, name: str) -> Any:
        kept = self._cache.read(name)
        if kept is None:
            return None
        try:
            return self._core.import_model(io.BytesIO(kept), "CPU", self._settings)
        except Exception:  # its reader raises UnicodeDecodeError, too: made anew
            self._cache.delete(name)
            return None

    def _compile_anew(self, name: str, module: nn.Module, example: tuple[Tensor, ...]) -> Any:
        compiled = self._core.compile_model(_convert(module, *example), "CPU", self._settings)
        self._cache.write(name, lambda: _exported(compiled))
        return compiled


def _is_banded(task: str, names: tuple[str, ...], shape: tuple[int, ...]) -> bool:
    """Whether maps are computed by a `SemanticBand` at a time from raw outputs of that shape."""
    members = 1 if len(shape) == 4 else shape[0]
    return task == "semantic" and SemanticBand.serves(names, members)


def _rounded_up(names: tuple[str, ...]) -> tuple[str, ...]:
    """With the maps that then cost nothing more: fewer forms to compile and keep."""
    if names == ("classes",):
        return names
    return tuple(n for n in SEMANTIC if n in names or n in ("classes", "confidence", "entropy"))


def _give_back_memory() -> None:
    """What compiling took, up to 1.6 GB at 1920 x 1080, goes back to the system: the GNU C library
    would keep it."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _exported(compiled: openvino.CompiledModel) -> bytes:
    return compiled.export_model().getvalue()


class _Forward(nn.Module):
    """A network alone, its raw outputs in the order of the tasks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(raw for raw in self.network(image) if raw is not None)


class _Network(nn.Module):
    """Normalisation and network as one graph, its raw outputs in the order of the tasks."""

    def __init__(self, network: nn.Module, spec: Any) -> None:
        super().__init__()
        self.normalize, self.network = Normalization(spec), _Forward(network)

    def forward(self, image: Tensor, camera: Tensor | None = None) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.network(self.normalize(image, camera))
        return found


class _Request:
    """One compiled model with its own buffers: arrays in, arrays out."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self.shapes = [tuple(output.shape) for output in compiled.outputs]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        result = self._request.infer(list(arrays), share_inputs=True, share_outputs=True)
        return [result[i] for i in range(len(self.shapes))]

    def on_own_arrays(self) -> Callable[..., list[np.ndarray]]:
        """The same as a function with less to do per call, for a request that is run many times a
        frame and in no other way: what is given is copied, what is returned is overwritten by the
        next call.
        """
        # OpenVINO takes the arrays' memory as it is, and keeps no reference to them: they live as
        # long as the function.
        inputs = [
            np.empty(tuple(each.shape), each.element_type.to_dtype())
            for each in self._request.model_inputs
        ]
        for index, array in enumerate(inputs):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        outputs = [self._request.get_output_tensor(i).data for i in range(len(self.shapes))]

        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            for own, given in zip(inputs, arrays, strict=True):
                np.copyto(own, given)
            self._request.start_async()
            self._request.wait()
            return outputs

        return run
