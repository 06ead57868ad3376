"""CUDA graph: all kernels of a frame as one launch.

Inference on one image is bound by launches, hundreds of them. They are recorded once per size and
set of wanted maps, the upload from pinned memory and what turns raw outputs into maps included, and
replayed on a stream of the engine's own. Experimental until it has run on a GPU: not what `auto`
takes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn as nn
from torch import Tensor

from emu_perception.inference.deployment import FEATURES
from emu_perception.inference.engines.activation import (
    activation_maps,
    activations,
    camera_tensor,
    finish_maps,
    prepare_pixels,
)
from emu_perception.inference.engines.base import Frame
from emu_perception.inference.engines.fused import fused
from emu_perception.inference.engines.pytorch import PyTorchEngine, forget_workspaces
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.postprocessing import MapSettings
from emu_perception.networks.ensembles import BatchedEnsemble, DeepEnsemble

KEPT = 8
"""Recorded sizes and sets of maps that are kept; the least recently used goes first."""
WARM_UP = 3
"""Runs before the recording, in which libraries choose their kernels."""


@dataclass(frozen=True)
class _Recording:
    """Inputs and outputs of a replay, at fixed addresses."""

    graph: torch.cuda.CUDAGraph
    image: Tensor
    """`(H, W, 3)` uint8 in pinned memory of the host."""
    camera: Tensor | None
    """`(1, 4)` float32, likewise, of a network that takes rays."""
    maps: dict[str, Tensor]


class CUDAGraphEngine(PyTorchEngine):
    """Replays a network's folded form on a GPU."""

    def __init__(self, model: LoadedModel, device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        if BatchedEnsemble.serves(self._network):
            self._network = BatchedEnsemble(cast(DeepEnsemble, self._network))
            self._encoder = self._network.first
        self._stream = torch.cuda.Stream(self._device)
        # Recordings never run at the same time, and results are copied out: one pool serves all.
        self._pool = torch.cuda.graph_pool_handle()
        self._recording = functools.lru_cache(KEPT)(self._record)

    @torch.inference_mode()
    def run(self, frame: Frame, wanted: frozenset[str], settings: MapSettings) -> dict[str, Tensor]:
        """See `Engine.run`. The maps are ready in the order of the current stream."""
        with torch.cuda.device(self._device):
            # The last replay may still be uploading from the pinned memory.
            self._stream.synchronize()
            size = (frame.image.shape[0], frame.image.shape[1])
            needed = activation_maps(wanted, settings)
            recording = self._recording(size, frame.network_size, frame.output_size, needed)
            recording.image.copy_(torch.from_numpy(frame.image))
            if recording.camera is not None:
                assert frame.camera is not None, "a network that takes rays needs a camera"
                recording.camera.copy_(camera_tensor(frame.camera))
            current = torch.cuda.current_stream()
            with torch.cuda.stream(self._stream):
                recording.graph.replay()
                # The next replay writes to the same addresses.
                maps = {name: found.clone() for name, found in recording.maps.items()}
            current.wait_stream(self._stream)
            for found in maps.values():
                found.record_stream(current)
            return finish_maps(maps, wanted, settings)

    def close(self) -> None:
        """See `Engine.close`."""
        self._stream.synchronize()
        self._recording.cache_clear()
        super().close()

    def _form(self, activation: nn.Module, raw: Tensor) -> nn.Module:
        return fused(activation, raw)

    def _record(
        self,
        size: tuple[int, int],
        network_size: tuple[int, int],
        output_size: tuple[int, int],
        wanted: frozenset[str],
    ) -> _Recording:
        host = torch.zeros((*size, 3), dtype=torch.uint8, pin_memory=True)
        camera = torch.ones((1, 4), pin_memory=True) if self._spec.rays else None
        modules: dict[str, nn.Module] = dict(activations(self._spec, wanted, output_size))

        def frame() -> dict[str, Tensor]:
            pixels = host.to(self._device, non_blocking=True)
            seen = None if camera is None else camera.to(self._device, non_blocking=True)
            found = prepare_pixels(pixels, network_size)
            return self._maps(found, seen, modules, FEATURES in wanted)

        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                frame()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # A recording works in a workspace of the pool; that of the stream may be taken from it.
        forget_workspaces()
        # Only this thread's calls are recorded: others may allocate meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            maps = frame()
        forget_workspaces()
        return _Recording(graph, host, camera, maps)
