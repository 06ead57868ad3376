"""One training run from its configuration to a model file, and the members of an ensemble."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn as nn
import yaml
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger

from emu_perception.allocator import keep_freed_memory
from emu_perception.atomic import write_text
from emu_perception.inference.methods import deep_ensemble
from emu_perception.inference.model_file import load_model, save_model
from emu_perception.inference.model_names import ModelFileError
from emu_perception.inference.model_spec import Camera, ModelSpec
from emu_perception.labels import LabelSet
from emu_perception.networks.pretrained import (
    IMAGENET_WHEELS,
    convert_segformer_state,
    load_imagenet,
    read_state,
    widen_input,
)
from emu_perception.text import one_line
from emu_perception.training.builders import build_module
from emu_perception.training.callbacks import (
    AtomicCheckpointIO,
    MovingAverage,
    Pictures,
    SameProcesses,
    epoch_checkpoint,
)
from emu_perception.training.config import TrainConfig
from emu_perception.training.console import ProgressBar, quiet_lightning
from emu_perception.training.data_module import ANNOTATION_FILE, DataModule
from emu_perception.training.modules import CLASS_IOU, SupervisedModule
from emu_perception.training.settings import ConfigError, expand
from emu_perception.training.start import start_from
from emu_perception.yaml_file import read_yaml

LOG = logging.getLogger(__name__)
MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.yaml"
ENSEMBLE_FILE = "ensemble.safetensors"
MEMBER_SEED = 7919
"""A prime: members of different runs do not share a seed."""
_WITHOUT_EFFECT = ("accelerator", "devices", "nodes", "strategy", "log_every", "picture_every")
"""Settings of the trainer that may change between a run and its continuation, as long as they make
as many processes: see `SameProcesses`."""

_RETIRED = {"loss": {"normals_weight": 1.0, "edges_weight": 1.0}}
"""Settings, by group, that runs of older versions have without effect, with their defaults."""


def describe_model(config: TrainConfig, label_set: LabelSet | None) -> ModelSpec:
    """The header of the model file that a run will write."""
    model = config.model
    camera = None
    if model.canonical_focal_length is not None:
        camera = Camera(
            canonical_focal_length=model.canonical_focal_length,
            assumed_focal_ratio=model.assumed_focal_ratio,
            assumed_focal_of=model.assumed_focal_of,
        )
    normalization: dict[str, Any] = {}
    if model.backbone in IMAGENET_WHEELS.values():
        normalization = {
            "normalization_mean": (127 / 255,) * 3,
            "normalization_std": (128 / 255,) * 3,
        }
    for name in ("normalization_mean", "normalization_std"):
        if getattr(model, name) is not None:
            normalization[name] = getattr(model, name)
    return ModelSpec(
        architecture=model.architecture,
        backbone=model.backbone,
        tasks=model.tasks,
        arguments=model.arguments,
        label_set=label_set,
        input_size=model.input_size,
        camera=camera,
        depth_range=model.depth_range,
        description=model.description,
        license=model.license,
        data=", ".join(each.title for each in config.data.train),
        **normalization,
    )


def build_network(config: TrainConfig, spec: ModelSpec) -> nn.Module:
    """The network as training starts: seeded, with the weights that the configuration names.

    Raises:
        ValueError: the weights do not fit.
    """
    torch.manual_seed(config.seed)
    network: Any = spec.build()
    if "depth" in spec.tasks:
        network.initialise_depth_mean(config.model.initial_depth)
        network.initialise_depth_deviation(config.model.initial_depth / 2)
    source = config.model.encoder_weights
    if source in IMAGENET_WHEELS:
        load_imagenet(network.encoder, source)
    elif source is not None:
        _load_encoder(network, expand(source))
    if config.model.start_from is not None:
        report = start_from(network, spec, expand(config.model.start_from))
        for line in report.lines():
            LOG.info(line)
    return network


def _load_encoder(network: Any, path: Path) -> None:
    """The encoder alone: decoders start at random, as the members of an ensemble must.

    Of one of our own model files, of a published file that names the backbone's tensors as timm
    does, such as torchvision's ResNets, or of a Mix Transformer file.
    """
    try:
        state = load_model(path).network.state_dict()
    except ModelFileError:
        state = read_state(path)
        if network.encoder.state_dict().keys() <= state.keys():  # as torchvision's and timm's do
            state = {f"encoder.{name}": state[name] for name in network.encoder.state_dict()}
        else:
            state = convert_segformer_state(state)
    prefix = "encoder."
    encoder = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    try:
        network.encoder.load_state_dict(widen_input(encoder, network.encoder.state_dict()))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the backbone: {error}") from error


def train(config: TrainConfig, resume: str = "auto", *, progress: bool = True) -> Path:
    """Train, or continue, or do nothing if the run is finished.

    Args:
        config: of the run.
        resume: `auto` continues an interrupted run; `never` starts anew; else a checkpoint's path:
            goes on from there, also where the run was finished.
        progress: show bars.

    Returns:
        The model file.

    Raises:
        ConfigError: the folder holds a run with other settings.
        ValueError: data, weights or teacher do not suit.
    """
    folder = expand(config.output)
    result, checkpoint = folder / MODEL_FILE, folder / "checkpoints" / "last.ckpt"
    start: Path | None = None
    if resume == "never":
        for number in range(len(config.data.train)):
            (folder / ANNOTATION_FILE.format(number)).unlink(missing_ok=True)
    else:
        _check_same(config, folder)
        if resume == "auto" and result.is_file():
            return result
        start = checkpoint if resume == "auto" else Path(resume)
        if not start.is_file():
            if resume != "auto":
                raise ConfigError(f"there is no checkpoint '{start}' to resume from")
            start = None
    if start is not None:
        AtomicCheckpointIO().load_checkpoint(start)  # refused before anything is deleted
    keep_freed_memory()
    quiet_lightning()
    model = config.model
    learnt = ("depth",) if config.multitask.self_supervision else ()
    data = DataModule(
        config.data,
        model.tasks,
        model.input_size,
        config.seed,
        folder,
        learnt,
        canonical=model.canonical_focal_length is not None,
    )
    spec = describe_model(config, data.training.label_set)
    module = build_module(config, spec, build_network(config, spec))
    module.label_groups = data.training.label_groups
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _trainer(config, module, data, folder, progress)
    if trainer.is_global_zero:
        # What an earlier run left would be taken for this one's, were this one cut off early.
        for path in (result, checkpoint, *folder.rglob("*.partial")):
            if start is None or path.resolve() != start.resolve():
                path.unlink(missing_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_text(folder / CONFIG_FILE, text)
    trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, MovingAverage):
            # Lightning leaves this out where the last epoch's checkpoint was all there was to load.
            callback.on_train_end(trainer, module)
    judged = config.trainer.epochs % config.trainer.validate_every == 0
    if data.validation is not None and not (judged and trainer.callback_metrics):
        trainer.validate(module, datamodule=data, verbose=False)  # these weights, not earlier ones
    if trainer.is_global_zero:
        figures = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        measured = {
            name: value
            for name, value in figures.items()
            if name.startswith("validation/") and not name.startswith(CLASS_IOU)
        }
        title = config.data.validation.title if config.data.validation else ""
        metrics: dict[str, Any] = {
            "training": {"epochs": config.trainer.epochs, "steps": trainer.global_step}
        }
        if measured:
            metrics[title] = {k.partition("/")[2]: v for k, v in measured.items()}
        save_model(result, module.network.eval(), spec.model_copy(update={"metrics": metrics}))
    trainer.strategy.barrier()
    return result


def train_ensemble(
    config: TrainConfig, members: int, resume: str = "auto", *, progress: bool = True
) -> Path:
    """Train the members one after the other and write them as one model file.

    Finished members are skipped, an interrupted one goes on. Each has a seed of its own, and with
    it its own decoders, order and augmentation; all see the same partial annotation.
    """
    config = config.with_annotation_seed(config.seed)
    if members < 2:
        raise ValueError(f"an ensemble needs at least two members, got {members}")
    if resume not in ("auto", "never"):
        raise ConfigError("each member has a checkpoint of its own: --resume auto, or never")
    files = []
    for index in range(members):
        seed = config.seed + MEMBER_SEED * (index + 1)
        output = str(Path(config.output) / f"member_{index:02d}")
        one = config.model_copy(update={"seed": seed, "output": output})
        LOG.info("member %d of %d: %s", index + 1, members, output)
        files.append(train(one, resume, progress=progress))
    return write_ensemble(files, expand(config.output) / ENSEMBLE_FILE)


def write_ensemble(files: Sequence[Path], out: Path) -> Path:
    """Several model files as one Deep Ensemble."""
    ensemble = deep_ensemble([load_model(file) for file in files])
    save_model(out, ensemble.network, ensemble.spec)
    return out


def _trainer(
    config: TrainConfig, module: SupervisedModule, data: DataModule, folder: Path, progress: bool
) -> L.Trainer:
    settings = config.trainer
    callbacks: list[Callback] = [
        epoch_checkpoint(folder / "checkpoints"),
        LearningRateMonitor("step"),
        SameProcesses(),
    ]
    # In this order: the average takes the network's place until validation has ended.
    if progress:
        callbacks.append(ProgressBar())
    if data.validation is not None:
        callbacks.append(Pictures(data.validation, settings.picture_every))
    if settings.ema_decay is not None:
        callbacks.append(MovingAverage(settings.ema_decay))
    strategy = settings.strategy
    if module.leaves_parameters_unused and strategy in ("ddp", "auto"):
        many = settings.nodes > 1 or settings.devices not in (1, "1")
        if many and (strategy == "ddp" or torch.cuda.device_count() > 1):
            strategy = "ddp_find_unused_parameters_true"
    options: dict[str, Any] = {
        "max_epochs": settings.epochs,
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": settings.nodes,
        "strategy": strategy,
        "precision": settings.precision,
        "accumulate_grad_batches": settings.accumulate,
        "gradient_clip_val": config.optimizer.clip_norm,
        "check_val_every_n_epoch": settings.validate_every,
        "limit_val_batches": None if data.validation is not None else 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": settings.log_every,
        "callbacks": callbacks,
        "plugins": [AtomicCheckpointIO()],
        "logger": TensorBoardLogger(folder, name="", version="curves"),
        "default_root_dir": folder,
        "enable_progress_bar": progress,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    try:
        return L.Trainer(**options)
    except Exception as error:  # Lightning has types of its own for impossible settings
        raise ConfigError(f"trainer: {one_line(str(error), 200)}") from error


def _without_retired(values: Any) -> Any:
    """A run's settings without those of older versions that have no effect."""
    if not isinstance(values, dict):
        return values
    found = dict(values)
    for group, names in _RETIRED.items():
        if isinstance(values.get(group), dict):
            found[group] = {k: v for k, v in values[group].items() if names.get(k) != v}
    return found


def _check_same(config: TrainConfig, folder: Path) -> None:
    """Refuse to continue a run whose settings were others."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        return
    try:
        # Settings that are newer than the run have their defaults.
        known = TrainConfig.model_validate(_without_retired(read_yaml(file)))
    except ValueError as error:  # a ValidationError is one, too
        raise ConfigError(
            f"{file} does not hold a run's settings; was it cut short? Put the run's own back, "
            "choose another output, or start anew with --resume never"
        ) from error
    before, now = (json.loads(each.model_dump_json()) for each in (known, config))
    for values in (before, now):
        values.pop("output", None)
        for name in _WITHOUT_EFFECT:
            values.get("trainer", {}).pop(name, None)
        values.get("data", {}).pop("workers", None)
    changed = sorted(name for name in now if now[name] != before.get(name))
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(changed)}): choose another "
            "output, or start anew with --resume never"
        )
