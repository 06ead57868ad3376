"""Self-describing model files: `.safetensors` with weights, `.onnx` for deployment.

Both hold the same JSON header. Loading a file never executes code from it. Only what touches
weights needs torch, which is imported there.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emu_perception.atomic import replacing
from emu_perception.inference import deployment, onnx_file
from emu_perception.inference.model_checks import (
    DIGEST,
    check_header_size,
    parse_description,
    reason,
)
from emu_perception.inference.model_names import ModelFileError, resolve_model_path
from emu_perception.inference.model_spec import ModelSpec, Traits

if TYPE_CHECKING:
    import torch
    import torch.nn as nn

HEADER_KEY = "emu_perception"
HALF_FROM = 16384
"""Numbers of the smallest tensor that is stored in fp16. Smaller ones (early layers, depthwise
kernels, biases, statistics of the norms) are 7 % of a network and cause most of fp16's error."""


class LoadedModel:
    """A network in `eval()` on the CPU, its description, and where it came from.

    Args:
        network: None: that of the file, built when it is first used.
    """

    def __init__(self, network: nn.Module | None, spec: ModelSpec, path: Path) -> None:
        self._network = network
        self.spec = spec
        self.path = path

    @property
    def network(self) -> nn.Module:
        """The network.

        Raises:
            ModelFileError: it is only built now, and the weights do not fit the description.
        """
        if self._network is None:
            self._network = _build(self.spec, self.path)
        return self._network

    @property
    def traits(self) -> Traits:
        """The network's; of one that is not built, as the description has them."""
        if self._network is None and self.spec.traits is not None:
            return self.spec.traits
        return Traits.of(self.network)

    def weights(self) -> dict[str, torch.Tensor]:
        """By name; of a network that is not built, from the file."""
        if self._network is None:
            return _read_weights(self.path)
        return self._network.state_dict()

    def described(self, spec: ModelSpec) -> LoadedModel:
        """The same network with another description of its use, such as another calibration."""
        return LoadedModel(self._network, spec, self.path)


class DeployedModel:
    """A `.onnx` deployment file: what runs without torch."""

    def __init__(self, spec: ModelSpec, path: Path) -> None:
        if spec.traits is None:
            raise ModelFileError(f"{path}: its description lacks the network's traits")
        self.spec = spec
        self.path = path
        self.traits: Traits = spec.traits

    def check_outputs(self, shapes: Mapping[str, Sequence[int]], size: tuple[int, int]) -> None:
        """Refuse raw outputs that do not fit the description.

        Raises:
            ModelFileError: see `deployment.check_outputs`.
        """
        try:
            deployment.check_outputs(shapes, self.spec, self.traits, size)
        except ValueError as error:
            raise ModelFileError(f"{self.path}: {error}") from error


def save_model(
    path: str | Path, network: nn.Module, spec: ModelSpec, *, half: bool = False
) -> None:
    """Write a model file; an existing one is replaced only when the new one is complete.

    Args:
        path: of the file; its folder is created.
        network: its weights are written.
        spec: the header.
        half: store tensors of `HALF_FROM` numbers or more in fp16, which nearly halves the file.
            Loading gives fp32 either way.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from emu_perception.inference.weight_checks import digest

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if half:
        tensors = {name: _halved(value) for name, value in tensors.items()}
    described = spec.model_copy(update={"traits": Traits.of(network)})
    values = {**described.model_dump(mode="json"), DIGEST: digest(tensors)}
    # One entry: safetensors writes several in any order, and equal models make equal files.
    metadata = {HEADER_KEY: json.dumps(values, ensure_ascii=False, separators=(",", ":"))}
    try:
        with replacing(Path(path)) as partial:
            save_file(tensors, partial, metadata=metadata)
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{path} cannot be written: {error}") from error


def _halved(value: torch.Tensor) -> torch.Tensor:
    """A large fp32 tensor in fp16, unless it exceeds fp16's range; other tensors as they are."""
    import torch

    if value.dtype != torch.float32 or value.numel() < HALF_FROM:
        return value
    half = value.half()
    return half if bool(torch.isfinite(half).all()) else value


def is_half(path: str | Path) -> bool:
    """Whether a model file stores weights in fp16.

    Raises:
        ModelFileError: missing, truncated, or not a model file of this package.
    """
    from safetensors import safe_open

    path = resolve_model_path(path, weights=True)
    _ = read_spec(path)
    with safe_open(path, framework="numpy") as file:
        return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118


def read_spec(path: str | Path) -> ModelSpec:
    """The description in a model file's header; reads no weights.

    Raises:
        ModelFileError: missing, truncated, or not a model file of this package.
    """
    path = resolve_model_path(path)
    metadata = _onnx_metadata(path) if _is_deployed(path) else _safetensors_metadata(path)
    if HEADER_KEY not in metadata:
        raise ModelFileError(
            f"{path} is {'an ONNX' if _is_deployed(path) else 'a safetensors'} file without this "
            "package's description in its header; write .safetensors files with save_model and "
            ".onnx files with `emu export`"
        )
    try:
        values, _ = parse_description(metadata[HEADER_KEY])
        return ModelSpec.model_validate(values)
    except ValueError as error:
        raise ModelFileError(f"{path}: its description does not hold: {reason(error)}") from error


def _is_deployed(path: Path) -> bool:
    return path.suffix == deployment.SUFFIX


def _onnx_metadata(path: Path) -> dict[str, str]:
    try:
        return onnx_file.read_metadata(path)
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read as an ONNX file: {error}") from error


def _safetensors_metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as a safetensors file: {error}; it may be truncated or of "
            "another format (git-lfs pointers look like this too)"
        ) from error


def load_model(path: str | Path) -> LoadedModel:
    """Build the network that a `.safetensors` file describes and load its weights.

    Raises:
        ModelFileError: missing, truncated, of another kind, or weights that do not fit.
    """
    path = resolve_model_path(path, weights=True)
    if _is_deployed(path):
        raise ModelFileError(
            f"{path} is for inference: training, calibration and export need the .safetensors file"
        )
    model = LoadedModel(None, read_spec(path), path)
    _ = model.network  # builds it
    return model


def open_model(path: str | Path) -> LoadedModel | DeployedModel:
    """A model for inference; the network of a `.safetensors` file is built when it is needed.

    Raises:
        ModelFileError: missing, truncated, or of another kind.
    """
    path = resolve_model_path(path)
    if not _is_deployed(path) and importlib.util.find_spec("torch") is None:
        raise ModelFileError(
            f"{path} needs PyTorch: install emu_perception with its extra [torch], or use a .onnx "
            "file"
        )
    spec = read_spec(path)
    if not _is_deployed(path):
        return LoadedModel(None, spec, path)
    _check_graph(path)
    return DeployedModel(spec, path)


def _check_graph(path: Path) -> None:
    _, expected = parse_description(_onnx_metadata(path)[HEADER_KEY])
    try:
        onnx_file.check_graph(path, expected)
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def _build(spec: ModelSpec, path: Path) -> nn.Module:
    from emu_perception.inference.weight_checks import WeightLimit

    weights = _read_weights(path)
    try:
        with WeightLimit(sum(tensor.numel() for tensor in weights.values())):
            network = spec.build()
        network.load_state_dict(weights)
    except Exception as error:  # impossible arguments fail in timm and torch in many ways
        raise ModelFileError(f"{path}: the weights do not fit its description: {error}") from error
    if spec.traits is not None and Traits.of(network) != spec.traits:
        raise ModelFileError(
            f"{path}: its description claims {spec.traits}, the network has {Traits.of(network)}"
        )
    return network.eval()


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """By name, those stored in fp16 as fp32."""
    from safetensors import SafetensorError, safe_open

    from emu_perception.inference.weight_checks import check_weights

    try:
        check_header_size(path)
        with safe_open(path, framework="pt") as file:
            _, expected = parse_description((file.metadata() or {}).get(HEADER_KEY, "{}"))
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check_weights(stored, expected)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: its weights cannot be read: {error}") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
