"""Description of a model: everything in a model file but the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from emu_perception.camera import Intrinsics
from emu_perception.inference.domain import DomainStatistics
from emu_perception.inference.model_checks import check_description
from emu_perception.labels import LabelSet
from emu_perception.tasks import TASKS, Task

if TYPE_CHECKING:
    import torch.nn as nn


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

    def metres_per_unit(self, fx: Any, fy: Any) -> Any:
        """f / f0: factor of the network's depth, and its square of the variance.

        Deployment files compute the same (`inference.prelude`).

        Args:
            fx, fy: focal lengths in pixels of the network's input: numbers, or tensors of a shape.

        Returns:
            f / f0 with f = sqrt(fx fy), in the same form.
        """
        return (fx * fy) ** 0.5 / self.canonical_focal_length

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
    """In the order of `TASKS`."""
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
        return tuple(task for task in TASKS if task in tasks)

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
