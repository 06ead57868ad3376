"""Settings of losses, their weighting and the multi-task methods."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat

from emu_perception.data.photometric import ColourJitter
from emu_perception.tasks import Task
from emu_perception.training.settings import Strict


class LossConfig(Strict):
    """The loss and its weights: cross-entropy + w1 depth, for students + w2 KL + w3 RMSLE."""

    depth: Literal["gaussian", "mse", "huber"] = "gaussian"
    """`mse` and `huber` train no variance (EMUFormer, Tables 9 and 10): they want
    `model.arguments.depth_variance: false`, except of a student, who learns it from its teacher."""
    semantic_weight: float = Field(1.0, ge=0)
    class_weights: dict[str, PositiveFloat] = Field({})
    """Weights of the pixels of these classes; others have 1. Rare classes need more."""
    depth_weight: float = Field(1.0, ge=0)
    """w1."""
    kl_weight: float = Field(10.0, ge=0)
    """w2; also of the distance from the teacher's maps of tasks other than depth."""
    rmsle_weight: float = Field(1.0, ge=0)
    """w3."""
    beta: float = Field(0.0, ge=0, le=1)
    """Exponent of the loss `gaussian`: pixels are weighted by variance^beta (beta-NLL)."""
    gaussian_ramp: tuple[float, float] | None = None
    """Fractions of the training between which the weight of the loss `gaussian` rises from 0: a
    mean first, then how far it is off."""
    log_weight: float = Field(0.0, ge=0)
    """Weight of |ln depth - ln truth| and the scale-invariant logarithmic error, half each."""
    gradient_weight: float = Field(0.0, ge=0)
    """Weight of the differences of ln depth between near pixels; see `losses.log_gradient`."""
    ground_weight: float = Field(0.0, ge=0)
    """Weight of the distance of the road from a plane, in images with classes but no depth."""
    ground_class: str = "road"
    camera_height: tuple[float, float] | None = None
    """Metres, mean and deviation: what the camera's height over that plane is drawn to, where the
    camera is known."""
    camera_tilt: float = Field(3.0, gt=0)
    """Degrees, mean 0: the deviation of that plane's roll and pitch, where its height counts."""

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses of classes and depth, by task."""
        return {"semantic": self.semantic_weight, "depth": self.depth_weight}


class WeightingConfig(Strict):
    """How the losses of several tasks become one; see `training/weighting.py`."""

    name: str = "fixed"
    weights: dict[Task, float] = Field({})
    """Factors of the tasks' losses; 1 for those not named."""
    arguments: dict[str, Any] = Field({})
    """Arguments of the weighting."""


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
    """Training signal of images without labels for some tasks; see `multitask/pairs.py`."""

    method: Literal[
        "supervised",
        "mapping",
        "perturbation",
        "direct_map",
        "perceptual_map",
        "contrastive",
        "discriminator",
    ] = "mapping"
    """`supervised`: no loss but that of the labels, weighted as in the other methods."""
    weight: float = Field(1.0, ge=0)
    """2 on NYUv2, 1 on Cityscapes."""
    joint_views: bool = False
    """Both views pass through the network, and its batch norms, as one batch: the authors' code.
    False: the second view passes alone and leaves the norms' running statistics unchanged."""
    flip_probability: float = Field(0.0, ge=0, le=1)
    """That the second view is mirrored; 0.5 in the authors' code on Cityscapes."""
    learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the method's networks; None: the encoder's (the paper: 1e-4)."""
    dense_share: float = Field(0.25, ge=0, le=1)
    """Labels known at a smaller fraction of the pixels only supervise: they are not mapped."""
    film_learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the parameters of a pair of tasks; None: `learning_rate`."""
    film_halved_every: int | None = Field(None, gt=0)
    """Steps after which that rate is halved, again and again; None: it falls as the others do."""
    arguments: dict[str, Any] = Field({})
    """Arguments of the method: widths, consistency and regularization of the mapping, and so on."""


class SelfSupervisionConfig(Strict):
    """Depth from image sequences instead of labels; see `multitask/self_supervised.py`."""

    poses: Literal["learned", "given"] = "learned"
    """How the camera moved: predicted, which leaves the scale open, or read from the data."""
    pose_backbone: str = "resnet18"
    """Backbone of the pose network, which is not part of the model file."""
    learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the pose network; None: the encoder's."""
    ssim_share: float = Field(0.85, ge=0, le=1)
    """Fraction of SSIM in the photometric error; the rest is the absolute difference."""
    smoothness: float = Field(1e-3, ge=0)
    """Weight of the inverse depth's slope."""


class AdaptationConfig(Strict):
    """Adversarial, to data sets with `target: true`; see `multitask/adaptation.py`."""

    weight: float = Field(0.005, ge=0)
    """Weight of the adversarial loss, the mean over tasks and scales."""
    learning_rate: float = Field(1e-4, gt=0)
    """Learning rate of the discriminators; it falls with (1 - step / steps)^0.9 (ADVENT)."""


class MultiTaskConfig(Strict):
    """Losses of networks for any set of tasks.

    SegDepthFormer, and students of any architecture, take the losses of classes and depth from
    `loss`; students take those of their other tasks, and the weighting, from here.
    """

    losses: dict[Task, str] = Field({})
    """In place of the tasks' defaults; see `training/multitask/task_losses.py`."""
    weighting: WeightingConfig = WeightingConfig()
    variance_weight: float = Field(1.0, ge=0)
    """Weight of the likelihood that trains a predictive variance."""
    transfer: TransferConfig = TransferConfig()
    """Settings of the architecture xtasc."""
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
    """Jitter of the teacher's input only; one draw per image, the same for all members."""
    missing_depth_weight: float = Field(0.0, ge=0)
    """Weight of the teacher's mean depth where an image has no depth of its own. Its classes
    stand in for missing ones through the KL divergence, which needs no labels."""
    weight_by_variance: bool = True
    """The surer the teacher of a pixel's missing depth, the more it counts."""
