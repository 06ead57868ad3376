"""What a training run, and a table of methods, can be told; `config_file` reads it from YAML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    field_validator,
    model_validator,
)

from emu_perception.data.photometric import ColourJitter, Photometric
from emu_perception.inference.model_file import Task
from emu_perception.networks.architectures import architectures
from emu_perception.training.agreement import check_agreement


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the key."""


class Strict(BaseModel):
    """A group of settings without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class AnnotationConfig(Strict):
    """Which labels the images of a data set keep: some tasks each, drawn once per seed.

    The regimes of Li et al., "Learning Multiple Dense Prediction Tasks from Partially Annotated
    Data" (CVPR 2022); see `draw_annotation`.
    """

    regime: Literal["one", "random", "ratio"]
    """`one` task each, equally many images per task; `random`: 1 … K − 1 tasks each; `ratio`: one
    task each, in the numbers of `ratio`."""
    tasks: tuple[Task, ...] | None = None
    """That are divided, in the order of `ratio`; labels of others are taken away. None: those of
    `model.tasks`."""
    ratio: tuple[float, ...] | None = None
    """Such as [1, 9]."""
    seed: int | None = Field(None, ge=0)
    """None: the run's, the same for all members of an ensemble and all rows of a study's seed. A
    student and a teacher that are to see the same labels need the same number here."""


class PastedConfig(Strict):
    """Things pasted into images, for tests of uncertainty; see `data/pasted.py`."""

    odd: DatasetConfig
    """Cut out of it is what belongs to no class, such as `scenes` with odd_objects."""
    known: DatasetConfig
    classes: tuple[str, ...] = Field(min_length=1)
    """Cut out of `known` are parts of these classes."""
    per_image: int = Field(2, ge=1)
    """Of each kind."""
    seed: int = Field(0, ge=0)


class DatasetConfig(Strict):
    """One split of one data set."""

    name: str
    """Of a registered data set (`emu data list`)."""
    root: str | None = None
    """Its folder; `~` and `$VARIABLES` are filled in."""
    split: str
    options: dict[str, Any] = {}
    """Of the data set, such as `classes: 13`."""
    label_set: str | None = None
    """Relabel to these classes."""
    renamed: dict[str, str | list[str]] = {}
    """Class of the data set -> class of `label_set`, or the several classes that it covers, where
    the names differ."""
    size: tuple[int, int] | None = None
    """Height and width that its images are brought to first; None: as they are."""
    proportion: float = Field(1.0, gt=0)
    """Share of a mixture."""
    normals_window: int = Field(5, ge=3)
    """Pixels, odd: the neighbourhood that normals are fitted in where they are derived from depth;
    noisy depth (Kinect, stereo) wants more."""
    annotation: AnnotationConfig | None = None
    """Of training data: hide the labels of some tasks. None: what there is."""
    target: bool = False
    """Of training data: another domain, without labels, to adapt to; see `multitask.adaptation`."""
    pasted: PastedConfig | None = None
    """Of data to judge by: paste odd and known things into its images."""

    @property
    def title(self) -> str:
        """Data set and split in words."""
        return f"{self.name} {self.split}"


class AugmentationConfig(Strict):
    """How training samples are changed; see `Augmentation`."""

    scale: tuple[float, float] = (0.5, 2.0)
    flip_probability: float = Field(0.5, ge=0, le=1)
    scale_changes: Literal["camera", "nothing"] = "camera"
    photometric: Photometric | None = None


class DataConfig(Strict):
    """What is trained, watched and calibrated on."""

    train: list[DatasetConfig] = Field(min_length=1)
    """Several are mixed by their proportions."""
    validation: DatasetConfig | None = None
    crop: tuple[int, int]
    """Height and width of training samples."""
    samples_per_epoch: int | None = Field(None, gt=0)
    """Of a mixture; by default the sum of its data sets' sizes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    batch_size: int = Field(8, gt=0)
    """Per process."""
    workers: int = Field(4, ge=0)
    """Processes that read and augment."""

    @field_validator("validation")
    @classmethod
    def _whole(cls, data: DatasetConfig | None) -> DatasetConfig | None:
        if data is not None and data.annotation is not None:
            raise ValueError("annotation hides labels of training data, not those to judge by")
        return data


class ModelConfig(Strict):
    """The network, and what its model file says about itself."""

    architecture: str = "segdepthformer"
    """Of a registered network (`networks/architectures.py`)."""
    backbone: str = "mit_b2"
    tasks: tuple[Task, ...] = Field(("semantic", "depth"), min_length=1)
    arguments: dict[str, Any] = {}
    """Of the architecture, such as width, dropout or members."""
    encoder_weights: str | None = None
    """Where the encoder starts: a Mix Transformer file that you have, one of torchvision or timm
    for the same backbone, a model file of this package, or `imagenet_lite0` for
    tf_efficientnet_lite0."""
    start_from: str | None = None
    """A model file of the same kind, as the student starts from a trained network."""
    input_size: tuple[int, int]
    """Height and width at inference."""
    normalization_mean: tuple[float, float, float] | None = None
    normalization_std: tuple[float, float, float] | None = None
    """Of red, green and blue in 0–1; None: ImageNet's, or those of the backbone's weights."""
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
    """Of the encoder."""
    head_factor: float = Field(10.0, gt=0)
    """The decoders' learning rate is this many times the encoder's."""
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["polynomial", "step", "constant"] = "polynomial"
    power: float = Field(0.9, gt=0)
    """Of the polynomial."""
    step_size: int = Field(30_000, gt=0)
    """Steps after which the schedule `step` multiplies the rates by `step_factor`, again and
    again."""
    step_factor: float = Field(0.1, gt=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)


class LossConfig(Strict):
    """The loss and its weights: cross-entropy + w1 depth, for students + w2 KL + w3 RMSLE."""

    depth: Literal["gaussian", "mse", "huber"] = "gaussian"
    """`mse` and `huber` train no variance (EMUFormer, Tables 9 and 10): they want
    `model.arguments.depth_variance: false`, except of a student, who learns it from its teacher."""
    semantic_weight: float = Field(1.0, ge=0)
    class_weights: dict[str, PositiveFloat] = {}
    """How much a pixel of these classes counts, others 1: rare ones are else learnt last."""
    depth_weight: float = Field(1.0, ge=0)
    """w1."""
    normals_weight: float = Field(1.0, ge=0)
    edges_weight: float = Field(1.0, ge=0)
    kl_weight: float = Field(10.0, ge=0)
    """w2; also of the distance from the teacher's normals and edges."""
    rmsle_weight: float = Field(1.0, ge=0)
    """w3."""
    beta: float = Field(0.0, ge=0, le=1)
    """Of the loss `gaussian`: each pixel is weighted by its variance to this power (beta-NLL)."""
    gaussian_ramp: tuple[float, float] | None = None
    """Shares of the training between which the weight of the loss `gaussian` rises from 0: a mean
    first, then how far it is off."""
    log_weight: float = Field(0.0, ge=0)
    """Of |ln depth - ln truth| and the scale-invariant logarithmic error, half each."""
    gradient_weight: float = Field(0.0, ge=0)
    """Weight of the differences of ln depth between near pixels; see `losses.log_gradient`."""
    ground_weight: float = Field(0.0, ge=0)
    """Of how far the depth of the road is off a plane, where an image has classes and no depth."""
    ground_class: str = "road"
    camera_height: tuple[float, float] | None = None
    """Metres, mean and deviation: what the camera's height over that plane is drawn to, where the
    camera is known."""
    camera_tilt: float = Field(3.0, gt=0)
    """Degrees, mean 0: the deviation of that plane's roll and pitch, where its height counts."""


class WeightingConfig(Strict):
    """How the losses of several tasks become one; see `training/multitask/weighting.py`."""

    name: str = "fixed"
    weights: dict[Task, float] = {}
    """Factors of the tasks' losses; 1 for those not named."""
    arguments: dict[str, Any] = {}
    """Of the weighting."""


class TransferConfig(Strict):
    """Losses between an XTasC-Net's direct and transferred predictions."""

    loss: Literal["consistency", "alignment", "observe", "labels"] = "consistency"
    """`consistency` is XTasC-Net, `alignment` Align-Net; with `observe` the transfer networks only
    measure, so that the network is trained as a plain multi-task one; with `labels` they learn from
    labels alone, to be the judge of others."""
    weight: float = Field(0.01, ge=0, le=1)
    """λ: 0.01 on Cityscapes, 0.0001 on NYUv2."""
    soft_target: bool = False
    """The softmax as the transferred classes' target (Eq. 13) instead of its arg-max."""
    judge: str | None = None
    """A model file whose transfer networks measure too, the same for all runs to be compared."""


class PartialConfig(Strict):
    """What images without labels of some tasks are trained on; see `multitask/pairs.py`."""

    method: Literal[
        "supervised",
        "mapping",
        "perturbation",
        "direct_map",
        "perceptual_map",
        "contrastive",
        "discriminator",
    ] = "mapping"
    """`supervised`: no loss besides that of the labels, which counts as with the other methods."""
    weight: float = Field(1.0, ge=0)
    """2 on NYUv2, 1 on Cityscapes."""
    joint_views: bool = False
    """Both views pass through the network, and its batch norms, as one batch: the authors' code.
    False: the second view passes alone and leaves the norms' running statistics unchanged."""
    flip_probability: float = Field(0.0, ge=0, le=1)
    """That the second view is mirrored; 0.5 in the authors' code on Cityscapes."""
    learning_rate: float | None = Field(None, gt=0)
    """Of the method's own networks, such as the mapping; None: the encoder's (the paper: 1e-4)."""
    dense_share: float = Field(0.25, ge=0, le=1)
    """Labels known at a smaller share of the pixels only supervise: they are not mapped."""
    film_learning_rate: float | None = Field(None, gt=0)
    """Of the parameters that the pair of tasks chooses; None: `learning_rate`."""
    film_halved_every: int | None = Field(None, gt=0)
    """Steps after which that rate is halved, again and again; None: it falls as the others do."""
    arguments: dict[str, Any] = {}
    """Of the method: widths, consistency and regularization of the mapping, and so on."""


class SelfSupervisionConfig(Strict):
    """Depth from image sequences instead of labels; see `multitask/self_supervised.py`."""

    pose_backbone: str = "resnet18"
    """Of the network that tells how the camera moved; it is not part of the model file."""
    learning_rate: float | None = Field(None, gt=0)
    """Of that network; None: the encoder's."""
    ssim_share: float = Field(0.85, ge=0, le=1)
    """Of the photometric error; the rest is the absolute difference."""
    smoothness: float = Field(1e-3, ge=0)
    """Weight of the inverse depth's slope."""


class AdaptationConfig(Strict):
    """Adversarial, to data sets with `target: true`; see `multitask/adaptation.py`."""

    weight: float = Field(0.005, ge=0)
    """Of looking like the source domain, the mean over tasks and scales."""
    learning_rate: float = Field(1e-4, gt=0)
    """Of the discriminators; it falls with (1 - step / steps)^0.9 (ADVENT)."""


class MultiTaskConfig(Strict):
    """Losses of networks for any set of tasks; `loss` is for SegDepthFormer and for students, who
    take the weighting from here too."""

    losses: dict[Task, str] = {}
    """In place of the tasks' defaults; see `training/multitask/losses.py`."""
    weighting: WeightingConfig = WeightingConfig()
    variance_weight: float = Field(1.0, ge=0)
    """Of the likelihood that trains a predictive variance, where the network has one."""
    transfer: TransferConfig = TransferConfig()
    """Of the architecture xtasc."""
    partial: PartialConfig | None = None
    """MTPSL and what it is compared with; for any network that is trained on several tasks."""
    self_supervision: SelfSupervisionConfig | None = None
    """Teach depth by image sequences."""
    adaptation: AdaptationConfig | None = None
    """Adapt to another domain without labels."""


class DistillationConfig(Strict):
    """The teacher of a student."""

    teacher: list[str] = Field(min_length=1)
    """Model files: one with members, one network (self-distillation), or the members."""
    jitter: ColourJitter = ColourJitter()
    """Of the teacher's input only; one draw per image, the same for all members."""
    missing_depth_weight: float = Field(0.0, ge=0)
    """Of the teacher's mean depth where an image has no depth of its own. Its classes stand in for
    missing ones through the KL divergence, which needs no labels."""
    weight_by_variance: bool = True
    """The surer the teacher of a pixel's missing depth, the more it counts."""


class TrainerConfig(Strict):
    """How long, on what, and what is kept."""

    epochs: int = Field(gt=0)
    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = Field(1, gt=0)
    strategy: str = "auto"
    precision: str = "32-true"
    """`32-true`, `16-mixed` or `bf16-mixed`; losses are computed in float32."""
    accumulate: int = Field(1, gt=0)
    """Batches per optimiser step."""
    freeze_norms_from: float | None = Field(None, ge=0, le=1)
    """Share of the training from which batch norms keep their statistics; None: they never do."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Average the weights with this decay, with less at first; None: don't."""
    validate_every: int = Field(1, gt=0)
    """Epochs."""
    log_every: int = Field(20, gt=0)
    """Steps."""
    picture_every: int = Field(5, gt=0)
    """Epochs between pictures of validation images."""


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
    def _check(self) -> TrainConfig:
        check_agreement(self)
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


def expand(path: str) -> Path:
    """A path with `~` and environment variables filled in; ConfigError for an unset variable."""
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ConfigError(f"'{path}' names an environment variable that is not set")
    return Path(expanded).expanduser()
