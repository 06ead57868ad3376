"""Self-describing model files: `.safetensors` with weights, `.onnx` for deployment.

Both hold the same JSON header. Loading a file never executes code from it. Only what touches
weights needs torch, which is imported there.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from emu_perception.atomic import replacing
from emu_perception.camera import Intrinsics
from emu_perception.inference import deployment, onnx_file
from emu_perception.inference.domain import DomainStatistics
from emu_perception.inference.model_checks import (
    DIGEST,
    check_description,
    check_header_size,
    parse_description,
    reason,
)
from emu_perception.labels import LabelSet
from emu_perception.resources import find_resource
from emu_perception.text import one_line

if TYPE_CHECKING:
    import torch
    import torch.nn as nn

HEADER_KEY = "emu_perception"
DEFAULT_MODEL = "street_emuformer_lite0"
SUFFIXES = (deployment.SUFFIX, ".safetensors")
"""Suffixes of model files; a name without suffix means the first that exists."""
HALF_FROM = 16384
"""Numbers of the smallest tensor that is stored in fp16. Smaller ones (early layers, depthwise
kernels, biases, statistics of the norms) are 7 % of a network and cause most of fp16's error."""
Task = Literal["semantic", "depth", "normals", "edges", "human_parts", "saliency"]


class ModelFileError(ValueError):
    """A model file that is missing, damaged, or not one of this package.

    The message is one line of at most `text.LINE_LIMIT` printable characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Fit(BaseModel):
    """The data that a number of a `Calibration` was fitted on."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    title: str
    """In words, such as "camvid calibration (47 images)"."""
    dataset: str
    """Name of the data set."""
    samples: tuple[str, ...]
    """Names of its samples: no figures are to be reported on these."""
    further: tuple[Fit, ...] = ()
    """The other data sets of the same fit."""

    def words(self) -> str:
        """All data sets, as text."""
        return " and ".join(fit.title for fit in (self, *self.further))


class Calibration(BaseModel):
    """Corrections fitted on held-out data after training."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(1.0, gt=0)
    """Divides the logits."""
    depth_variance_scale: float = Field(1.0, gt=0)
    """Multiplies the predictive variance of depth."""
    fitted_on: str = ""
    """The data that it was fitted on, in words; empty: not calibrated."""
    fits: dict[Literal["temperature", "depth_variance_scale"], Fit] = {}
    """The same by number, sample by sample; files of older versions have it in words only."""

    def fitted(self, on: Fit, *further: Fit, **numbers: float) -> Calibration:
        """With those of the two numbers that were fitted on some data; the other one stays."""
        data = on.model_copy(update={"further": further}) if further else on
        fits: dict[Any, Fit] = {**self.fits, **dict.fromkeys(numbers, data)}
        before = "" if self.fits else self.fitted_on
        temperature, scale = (
            fits[name].words() if name in fits else before
            for name in ("temperature", "depth_variance_scale")
        )
        words = {"temperature": temperature, "depth variance": scale}
        parts = [f"{what} on {title}" for what, title in words.items() if title]
        return Calibration.model_validate(
            {
                **self.model_dump(),
                **numbers,
                "fits": fits,
                "fitted_on": temperature if temperature == scale else ", ".join(parts),
            }
        )


class Camera(BaseModel):
    """How metres follow from the canonical depth that the network predicts.

    The network predicts depth x f0 / f, where f is the focal length in pixels of its input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    canonical_focal_length: float = Field(gt=0)
    """f0, in pixels."""
    assumed_focal_ratio: float = Field(gt=0)
    """Focal length / image size, assumed for a camera whose intrinsics are unknown."""
    assumed_focal_of: Literal["width", "area"] = "width"
    """The image size of that ratio: its width, or the square root of width x height, which differs
    less between wide and narrow images of similar lenses."""
    assumed_focal_std: float = Field(0.25, ge=0)
    """Relative standard deviation of that guess; it widens the depth's."""

    def assume(self, width: int, height: int) -> Intrinsics:
        """The intrinsics of an image whose camera is unknown."""
        size = width if self.assumed_focal_of == "width" else math.sqrt(width * height)
        return Intrinsics.from_focal_ratio(width, height, self.assumed_focal_ratio * size / width)


class Traits(BaseModel):
    """Properties of a network that its tasks do not determine."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    depth_variance: bool = True
    """Its depth, where it predicts one, comes with a variance."""
    epistemic: bool = False
    """It tells the epistemic part of its uncertainties apart."""
    stochastic: bool = False
    """It samples its dropout at inference."""

    @classmethod
    def of(cls, network: nn.Module) -> Traits:
        """Read the traits of a network."""
        found = {name: getattr(network, name, None) for name in cls.model_fields}
        return cls(**{name: bool(value) for name, value in found.items() if value is not None})


class ModelSpec(BaseModel):
    """Everything about a model but its weights."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    format: Literal[1] = 1
    architecture: str
    backbone: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    """In the order of `Task`."""
    arguments: dict[str, Any] = {}
    """Further arguments of the architecture's builder, such as the decoders' width."""
    label_set: LabelSet | None = None
    """Needed for the task "semantic"; also names the classes that have no depth."""
    input_size: tuple[int, int]
    """Height and width that the network was trained for."""
    normalization_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    normalization_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    camera: Camera | None = None
    """None: the network predicts metres whatever the camera."""
    depth_range: tuple[float, float] = (1e-3, 80.0)
    """Metres; predictions outside are invalid."""
    calibration: Calibration = Calibration()
    domain: DomainStatistics | None = None
    """Statistics of the training images; None: it is not known how far an image is from them."""
    description: str = ""
    data: str = ""
    """Training data."""
    license: str = ""
    """Terms of the weights, those inherited from the data included."""
    metrics: dict[str, Any] = {}
    """Metrics by data set and split."""
    checked_precisions: tuple[str, ...] = ("fp32",)
    """Precisions in which an exported file was compared with PyTorch; `auto` takes no other."""
    traits: Traits | None = None
    """Written with the weights; None before that, and in files of older versions."""

    @field_validator("label_set", mode="before")
    @classmethod
    def _read_label_set(cls, value: Any) -> Any:
        return LabelSet.from_dict(value) if isinstance(value, dict) else value

    @field_validator("tasks")
    @classmethod
    def _order_tasks(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        return tuple(task for task in get_args(Task) if task in tasks)

    @field_serializer("label_set")
    def _write_label_set(self, value: LabelSet | None) -> Any:
        return None if value is None else value.to_dict()

    @model_validator(mode="after")
    def _check(self) -> ModelSpec:
        if "semantic" in self.tasks and self.label_set is None:
            raise ValueError("the task 'semantic' needs a label_set")
        if min(self.input_size) < 32:
            raise ValueError(f"input_size must be at least 32 x 32, got {self.input_size}")
        check_description(self.backbone, self.input_size, self.arguments)
        if min(self.normalization_std) <= 0:
            raise ValueError(f"normalization_std must be positive, got {self.normalization_std}")
        if self.rays and self.camera is None:
            raise ValueError("a network that takes rays needs a camera, to assume an unknown one")
        low, high = self.depth_range
        if not (0 <= low < high and math.isfinite(high)):
            raise ValueError(f"depth_range must be 0 <= min < max, got {self.depth_range}")
        return self

    @property
    def rays(self) -> bool:
        """Whether the network takes the rays of its pixels in addition to their colours."""
        return bool(self.arguments.get("rays", False))

    def build(self) -> nn.Module:
        """An untrained network of this kind."""
        # Only now: a runtime that has kept its compiled form needs none of the networks.
        from emu_perception.networks.architectures import build_network

        classes = len(self.label_set) if self.label_set and "semantic" in self.tasks else None
        return build_network(
            self.architecture,
            backbone=self.backbone,
            classes=classes,
            tasks=self.tasks,
            **self.arguments,
        )


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


def resolve_model_path(path: str | Path, *, weights: bool = False) -> Path:
    """The path of a file, or of a shipped model by its name; empty means the default model.

    Args:
        path: a file with or without its suffix, or a shipped model's name.
        weights: prefer the `.safetensors` file to the `.onnx` file of the same name.

    Raises:
        ModelFileError: there is no such file.
    """
    if not str(path):
        path = DEFAULT_MODEL
    candidate = Path(path).expanduser()
    if candidate.is_file():
        return candidate
    try:
        shipped = find_resource("models")
    except FileNotFoundError:
        shipped = Path()
    suffixes = SUFFIXES[::-1] if weights else SUFFIXES
    names = [candidate.name, *(candidate.name + suffix for suffix in suffixes)]
    folders = [candidate.parent, *([shipped] if len(candidate.parts) == 1 else [])]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    found = {p.stem for p in shipped.glob("*") if p.suffix in SUFFIXES}
    known = ", ".join(sorted(found)) or "none"
    raise ModelFileError(f"there is no model file '{path}' (shipped models: {known})")


def default_model_path() -> Path:
    """The model that is used when none is named."""
    return resolve_model_path(DEFAULT_MODEL)


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
