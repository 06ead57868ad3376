"""Settings of a training run; `config_file` reads them from YAML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from emu_perception.networks.architectures import architectures
from emu_perception.tasks import Task
from emu_perception.training.data_config import DataConfig
from emu_perception.training.loss_config import DistillationConfig, LossConfig, MultiTaskConfig
from emu_perception.training.settings import Strict

TRAINED_BY_LOSS = ("segdepthformer", "deep_sub_ensemble")
"""Architectures that `LossConfig` is about."""


class ModelConfig(Strict):
    """The network, and the description in its model file."""

    architecture: str = "segdepthformer"
    """Name of a registered network (`networks/architectures.py`)."""
    backbone: str = "mit_b2"
    tasks: tuple[Task, ...] = Field(("semantic", "depth"), min_length=1)
    arguments: dict[str, Any] = Field({})
    """Arguments of the architecture, such as width, dropout or members."""
    encoder_weights: str | None = None
    """Weights that the encoder starts from: a Mix Transformer file that you have, one of
    torchvision or timm for the same backbone, a model file of this package, or `imagenet_lite0` for
    tf_efficientnet_lite0."""
    start_from: str | None = None
    """A model file of the same kind, as the student starts from a trained network."""
    input_size: tuple[int, int]
    """Height and width at inference."""
    normalization_mean: tuple[float, float, float] | None = None
    normalization_std: tuple[float, float, float] | None = None
    """RGB, 0–1; None: ImageNet's, or those of the backbone's weights."""
    canonical_focal_length: float | None = Field(None, gt=0)
    """f0 in pixels; None: metres whatever the camera, as in the papers."""
    assumed_focal_ratio: float = Field(0.9, gt=0)
    """Focal length / image size of a camera that is unknown at inference."""
    assumed_focal_of: Literal["width", "area"] = "width"
    """Image size of that ratio: the width, or the square root of width x height."""
    depth_range: tuple[float, float] = (1e-3, 80.0)
    initial_depth: float = Field(15.0, gt=0)
    """The mean depth of the training data: where the mean channel's bias starts, and half of it
    where the deviation does."""
    description: str = ""
    license: str = ""
    """Terms of the weights, those of the data included."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in architectures():
            raise ValueError(f"there is no '{name}'; known: {', '.join(architectures())}")
        return name


class OptimizerConfig(Strict):
    """AdamW with a polynomial decay of the learning rate per step (EMUFormer, Eq. 12)."""

    name: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(6e-5, gt=0)
    """Learning rate of the encoder."""
    head_factor: float = Field(10.0, gt=0)
    """The decoders' learning rate is this many times the encoder's."""
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["polynomial", "step", "constant"] = "polynomial"
    power: float = Field(0.9, gt=0)
    """Exponent of the polynomial."""
    step_size: int = Field(30_000, gt=0)
    """Steps after which the schedule `step` multiplies the rates by `step_factor`, again and
    again."""
    step_factor: float = Field(0.1, gt=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)


class TrainerConfig(Strict):
    """How long, on what, and what is kept."""

    epochs: int = Field(gt=0)
    accelerator: str = "auto"
    devices: int | str = "auto"
    """Number of devices, -1 for all, their indices such as "0,2", or "auto"."""
    nodes: int = Field(1, gt=0)
    strategy: str = "auto"
    precision: str = "32-true"
    """`32-true`, `16-mixed` or `bf16-mixed`; losses are computed in float32."""
    accumulate: int = Field(1, gt=0)
    """Batches per optimiser step."""
    freeze_norms_from: float | None = Field(None, ge=0, le=1)
    """Fraction of the training after which batch norm statistics are frozen; None: never."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """EMA decay of the weights, smaller at first; None disables EMA."""
    validate_every: int = Field(1, gt=0)
    """Epochs."""
    log_every: int = Field(20, gt=0)
    """Steps."""
    picture_every: int = Field(5, gt=0)
    """Epochs between pictures of validation images."""

    @field_validator("devices")
    @classmethod
    def _some(cls, devices: int | str) -> int | str:
        if isinstance(devices, int) and devices < 1 and devices != -1:
            raise ValueError(f"must be a positive number, -1 for all, or 'auto', got {devices}")
        return devices


class TrainConfig(Strict):
    """One training run, or the members of an ensemble."""

    output: str
    """Folder of the run: configuration, checkpoint, curves and the final `model.safetensors`."""
    seed: int = Field(0, ge=0)
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    multitask: MultiTaskConfig = MultiTaskConfig()
    trainer: TrainerConfig
    distillation: DistillationConfig | None = None

    @model_validator(mode="after")
    def _check_data(self) -> TrainConfig:
        if self.loss.class_weights and self.model.architecture not in TRAINED_BY_LOSS:
            raise ValueError(
                f"loss.class_weights is for {' and '.join(TRAINED_BY_LOSS)}; what "
                f"{self.model.architecture} learns by is in multitask.losses"
            )
        for data in self.data.train:
            if data.pasted is not None:
                raise ValueError(
                    f"data.train: {data.title} has things pasted in, which is for data to judge by"
                )
        return self

    @model_validator(mode="after")
    def _check_student(self) -> TrainConfig:
        split = bool(self.model.arguments.get("split_uncertainty"))
        if split and self.distillation is None:
            raise ValueError(
                "model.arguments.split_uncertainty is trained by a teacher: add distillation"
            )
        if split and self.model.architecture != "segdepthformer":
            raise ValueError("split_uncertainty is for the architecture segdepthformer")
        if self.distillation is not None and "ensemble" in self.model.architecture:
            raise ValueError("a student is one network, such as segdepthformer: no ensemble")
        return self

    @model_validator(mode="after")
    def _check_depth_variance(self) -> TrainConfig:
        """That something trains what the network predicts of depth, and nothing else."""
        if self.model.architecture not in TRAINED_BY_LOSS or "depth" not in self.model.tasks:
            return self
        predicted = self.model.arguments.get("depth_variance", True)
        loss = self.loss.depth
        if loss == "gaussian" and not predicted:
            raise ValueError(
                "loss.depth: gaussian trains a variance, and model.arguments.depth_variance is "
                "false: take mse or huber"
            )
        if loss != "gaussian" and predicted and self.distillation is None:
            raise ValueError(
                f"loss.depth: {loss} trains no variance of depth, which only a teacher would: set "
                "model.arguments.depth_variance: false (several such networks together have the "
                "variance of their means)"
            )
        return self

    @model_validator(mode="after")
    def _check_methods(self) -> TrainConfig:
        methods = ("partial", "self_supervision", "adaptation")
        chosen = [name for name in methods if getattr(self.multitask, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"multitask.{' and multitask.'.join(chosen)} exclude each other")
        domains = {each.target for each in self.data.train}
        if self.multitask.adaptation is not None and domains != {False, True}:
            raise ValueError(
                "multitask.adaptation needs data.train of two domains: labelled, and target: true"
            )
        if self.multitask.adaptation is None and True in domains:
            raise ValueError("data.train has target: true: only multitask.adaptation learns of it")
        return self

    @model_validator(mode="after")
    def _check_cameras(self) -> TrainConfig:
        augmentation = self.data.augmentation
        if self.model.arguments.get("rays") and self.model.canonical_focal_length is None:
            raise ValueError("model.arguments.rays needs model.canonical_focal_length")
        if self.multitask.self_supervision is not None:
            if augmentation.scale_changes == "nothing":
                raise ValueError(
                    "multitask.self_supervision needs cameras: set data.augmentation.scale_changes:"
                    " camera"
                )
            if augmentation.photometric is not None:
                raise ValueError(
                    "multitask.self_supervision compares images with their neighbours: set "
                    "data.augmentation.photometric: null"
                )
        if self.model.canonical_focal_length and augmentation.scale_changes == "nothing":
            raise ValueError(
                "canonical_focal_length needs cameras: set data.augmentation.scale_changes: camera"
            )
        return self

    def with_annotation_seed(self, seed: int) -> TrainConfig:
        """The same with this seed for partial annotations that name none."""
        train = []
        for each in self.data.train:
            if each.annotation is not None and each.annotation.seed is None:
                annotation = each.annotation.model_copy(update={"seed": seed})
                each = each.model_copy(update={"annotation": annotation})
            train.append(each)
        return self.model_copy(update={"data": self.data.model_copy(update={"train": train})})
