"""Which settings of a training run do not go together, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu_perception.training.config import TrainConfig

TRAINED_BY_LOSS = ("segdepthformer", "deep_sub_ensemble")
"""Architectures that `LossConfig` is about."""


def check_agreement(config: TrainConfig) -> None:
    """ValueError where settings, each valid by itself, do not go together."""
    _check_student(config)
    _check_depth_variance(config)
    _check_methods(config)
    _check_cameras(config)
    if config.loss.class_weights and config.model.architecture not in TRAINED_BY_LOSS:
        raise ValueError(
            f"loss.class_weights is for {' and '.join(TRAINED_BY_LOSS)}; what "
            f"{config.model.architecture} learns by is in multitask.losses"
        )
    for data in config.data.train:
        if data.pasted is not None:
            raise ValueError(
                f"data.train: {data.title} has things pasted in, which is for data to judge by"
            )


def _check_student(config: TrainConfig) -> None:
    split = bool(config.model.arguments.get("split_uncertainty"))
    if split and config.distillation is None:
        raise ValueError(
            "model.arguments.split_uncertainty is learnt from a teacher: add distillation"
        )
    if split and config.model.architecture != "segdepthformer":
        raise ValueError("split_uncertainty is for the architecture segdepthformer")
    if config.distillation is not None and "ensemble" in config.model.architecture:
        raise ValueError("a student is one network, such as segdepthformer: no ensemble")


def _check_depth_variance(config: TrainConfig) -> None:
    """That something trains what the network predicts of depth, and nothing else."""
    if config.model.architecture not in TRAINED_BY_LOSS or "depth" not in config.model.tasks:
        return
    predicted = config.model.arguments.get("depth_variance", True)
    loss = config.loss.depth
    if loss == "gaussian" and not predicted:
        raise ValueError(
            "loss.depth: gaussian trains a variance, and model.arguments.depth_variance is false: "
            "take mse or huber"
        )
    if loss != "gaussian" and predicted and config.distillation is None:
        raise ValueError(
            f"loss.depth: {loss} trains no variance of depth, which only a teacher would: set "
            "model.arguments.depth_variance: false (several such networks together have the "
            "variance of their means)"
        )


def _check_methods(config: TrainConfig) -> None:
    methods = ("partial", "self_supervision", "adaptation")
    chosen = [name for name in methods if getattr(config.multitask, name) is not None]
    if len(chosen) > 1:
        raise ValueError(f"multitask.{' and multitask.'.join(chosen)} exclude each other")
    domains = {each.target for each in config.data.train}
    if config.multitask.adaptation is not None and domains != {False, True}:
        raise ValueError(
            "multitask.adaptation needs data.train of two domains: labelled, and target: true"
        )
    if config.multitask.adaptation is None and True in domains:
        raise ValueError("data.train has target: true: only multitask.adaptation learns of it")


def _check_cameras(config: TrainConfig) -> None:
    augmentation = config.data.augmentation
    if config.model.arguments.get("rays") and config.model.canonical_focal_length is None:
        raise ValueError("model.arguments.rays needs model.canonical_focal_length")
    if config.multitask.self_supervision is not None:
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
    if config.model.canonical_focal_length and augmentation.scale_changes == "nothing":
        raise ValueError(
            "canonical_focal_length needs cameras: set data.augmentation.scale_changes: camera"
        )
