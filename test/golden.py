"""Outputs before and after a change that must not alter them.

Record with the old code, compare with the new code on the same machine:

    python test/golden.py record before.npz
    python test/golden.py compare before.npz

Recorded are all maps of the shipped models and of small networks of every kind, by each engine of
a CPU, and for every training method the losses and weights after five steps. Other processors
round in another way, so no recorded file is part of the repository.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.inference.methods import deep_ensemble, monte_carlo_dropout
from emu_perception.inference.model_file import LoadedModel, load_model
from emu_perception.inference.model_spec import Calibration
from emu_perception.inference.predictor import Predictor
from emu_perception.resources import find_resource
from emu_perception.training import run
from emu_perception.training.config import TrainConfig

Arrays = dict[str, np.ndarray]
ENGINES = ("pytorch", "openvino")
CONVERTED = (
    "street_emuformer_lite0", "street_scenes_lite0", "street_lite2", "room_lite2",
    "baseline", "street", "ensemble", "sub_ensemble", "split_student", "xtasc",
)  # fmt: skip
"""Models that OpenVINO runs too."""
RENAMED = {"semantic_uncertainty": "semantic_entropy"}
"""Maps by the name that they are recorded under."""
TOLERANCE = 1e-6
"""Of floating-point arrays, absolute and relative to the largest value of a map."""
TASKS = ["semantic", "depth"]


def image(height: int, width: int) -> np.ndarray:
    """A smooth uint8 RGB image with some noise, the same on every machine."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:height, :width]
    phase = np.stack([rows / 37 + columns / 53, rows / 19 - columns / 71, columns / 29], axis=2)
    return np.uint8(127 + 100 * np.sin(phase) + rng.uniform(-20, 20, phase.shape))


def predictions(name: str, model: LoadedModel, sizes: list[tuple[int, int]]) -> Iterator[Any]:
    """All maps of a model by each engine and size, with and without intrinsics."""
    engines = ENGINES if name in CONVERTED else ENGINES[:1]
    for engine in engines:
        predictor = Predictor(model, "cpu", engine=engine)
        for height, width in sizes:
            for camera in (None, Intrinsics(0.8 * width, 0.82 * width, 0.5 * width, 0.48 * height,
                                            width, height)):  # fmt: skip
                if model.traits.stochastic:
                    import torch

                    torch.manual_seed(0)
                maps = predictor.available_maps
                found = predictor.predict(image(height, width), camera, maps=maps)
                known = "camera" if camera else "unknown"
                for each in sorted(maps):
                    key = f"{name}/{engine}/{height}x{width}/{known}/{RENAMED.get(each, each)}"
                    yield key, getattr(found, each)
        predictor.close()


def shipped() -> Iterator[Any]:
    """Maps of the shipped models."""
    for path in sorted(find_resource("models").glob("*.safetensors")):
        yield from predictions(path.stem, load_model(path), [(240, 320), (179, 401)])


def settings(folder: Path, name: str, **changes: Any) -> TrainConfig:
    """Five steps of a small network on ten rendered scenes."""
    scenes: dict[str, Any] = {"name": "scenes", "root": str(folder / "scenes"), "split": "train"}
    scenes["options"] = {"count": 10, "size": [64, 96]}
    values: dict[str, Any] = {
        "output": str(folder / name),
        "model": {
            "backbone": "mit_b0",
            "arguments": {"width": 8, "dropout": 0.1, "drop_path": 0.1},
            "input_size": [64, 96],
            "depth_range": [0.5, 80.0],
        },
        "data": {
            "train": [scenes],
            "crop": [64, 96],
            "augmentation": {"scale": [1.0, 1.2], "scale_changes": "nothing"},
            "batch_size": 2,
            "workers": 0,
        },
        "optimizer": {"learning_rate": 1e-3},
        "trainer": {"epochs": 1, "accelerator": "cpu", "devices": 1, "log_every": 1},
    }
    for group, change in changes.items():
        values[group] = {**values.get(group, {}), **change} if isinstance(change, dict) else change
    train = values["data"]["train"]
    values["data"]["train"] = [{**scenes, **each} for each in train]
    return TrainConfig.model_validate(values)


def methods() -> dict[str, dict[str, Any]]:
    """Changes of `settings` by the name of a run."""
    dense = {
        "architecture": "densemtl",
        "backbone": "resnet10t",
        "tasks": ["semantic", "depth", "normals", "edges"],
        "arguments": {"dilated": False, "width": 0.25, "depth_variance": True},
    }
    unet = {"width": 4, "transfer_widths": [], "unit": "metres", "depth_variance": True}
    xtasc = {"architecture": "xtasc", "backbone": "resnet10t", "arguments": unet}
    transfer = {**xtasc, "arguments": {**unet, "transfer_widths": [2, 4, 4]}}
    l1 = {"losses": {"depth": "l1"}}
    found: dict[str, dict[str, Any]] = {
        "baseline": {},
        "street": {
            "model": {
                "arguments": {"width": 8, "rays": True},
                "canonical_focal_length": 80.0,
            },
            "data": {"augmentation": {"photometric": {}}},
            "loss": {"beta": 0.5, "log_weight": 1.0, "gaussian_ramp": [0.0, 0.5],
                     "class_weights": {"road": 2.0}},
            "trainer": {"ema_decay": 0.9},
        },
        "sub_ensemble": {
            "model": {"architecture": "deep_sub_ensemble",
                      "arguments": {"width": 8, "members": 3}},
        },
        "student": {},
        "split_student": {"model": {"arguments": {"width": 8, "split_uncertainty": True}}},
        "densemtl": {"model": dense},
        "densemtl_student": {"model": {**dense, "tasks": TASKS}},
        "adaptation": {
            "model": {**dense, "tasks": TASKS},
            "data": {"train": [{}, {"split": "val", "target": True}], "batch_size": 4},
            "multitask": {"adaptation": {}},
        },
        "self_supervised": {
            "model": {**dense, "tasks": TASKS,
                      "arguments": {"dilated": False, "width": 0.25, "unit": "sigmoid_inverse"}},
            "data": {
                "train": [{"name": "scene_drives",
                           "options": {"drives": 1, "frames": 12, "size": [64, 96]}}],
                "augmentation": {"scale": [1.0, 1.0], "scale_changes": "camera"},
            },
            "multitask": {"self_supervision": {"pose_backbone": "resnet10t"}},
        },
        "xtasc": {"model": transfer, "multitask": {**l1, "weighting": {"name": "uncertainty"},
                                                   "transfer": {"weight": 0.5}}},
        "align": {"model": transfer, "multitask": {**l1, "transfer": {"loss": "alignment"}}},
        "segdepthformer_mapping": {
            "multitask": {"partial": {"method": "mapping", "arguments": {"widths": [4, 4, 8]}}},
        },
    }  # fmt: skip
    for name, backbone, arguments in (
        ("padnet", "resnet10t", {"width": 8}),
        ("segnet", "segnet", {"widths": [4, 4, 8, 8, 8]}),
        ("mtan", "segnet", {"widths": [4, 4, 8, 8, 8]}),
        ("dilated_aspp", "resnet10t", {"width": 8}),
    ):
        found[name] = {
            "model": {"architecture": name, "backbone": backbone, "arguments": arguments}
        }
    one = {"train": [{"annotation": {"regime": "one"}}]}
    for name in ("mapping", "perturbation", "direct_map", "perceptual_map", "contrastive",
                 "discriminator"):  # fmt: skip
        widths = [4, 4, 8] if name.endswith("map") else [4, 4, 8, 8]
        arguments = {"widths": widths}
        if name == "perturbation":
            arguments = {"confidence": 0.0, "tolerance": 1e9}
        partial = {"method": name, "arguments": arguments}
        found[f"mtpsl_{name}"] = {
            "model": xtasc, "data": one, "multitask": {**l1, "partial": partial}
        }  # fmt: skip
    for name in ("uncertainty", "dwa", "gradnorm", "pcgrad", "mgda"):
        found[f"weighting_{name}"] = {
            "model": xtasc, "multitask": {**l1, "weighting": {"name": name}}
        }  # fmt: skip
    return found


def losses(folder: Path) -> Arrays:
    """Logged training losses by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    log = EventAccumulator(str(folder / "curves"))
    log.Reload()
    for tag in log.Tags()["scalars"]:
        if tag.startswith("train/"):
            found[tag] = np.array([each.value for each in log.Scalars(tag)])
    return found


def trained(only: Sequence[str]) -> Iterator[Any]:
    """Losses, weights and then maps of each small run, or of some."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ensemble = run.train_ensemble(settings(folder, "ensemble"), 2, progress=False)
        sources = {"ensemble": ensemble}
        for name, changes in methods().items():
            if only and name not in only:
                continue
            print(name, flush=True)
            if name.endswith("student"):
                changes = {**changes, "distillation": {"teacher": [str(ensemble)]}}
            sources[name] = run.train(settings(folder, name, **changes), progress=False)
        for name, file in sources.items():
            logged = folder / name if name != "ensemble" else folder / name / "member_00"
            for tag, values in losses(logged).items():
                yield f"{name}/{tag}", values
            model = load_model(file)
            for key, weight in model.network.state_dict().items():
                value = weight.double()
                yield f"{name}/weights/{key}", np.array([value.sum(), value.abs().sum()])
            calibration = Calibration(temperature=1.7, depth_variance_scale=2.5)
            spec = model.spec.model_copy(update={"calibration": calibration})
            if not name.startswith(("mtpsl", "weighting")):
                yield from predictions(name, model.described(spec), [(64, 96), (70, 130)])
            if name == "baseline":
                yield from predictions("dropout", monte_carlo_dropout(model, 0.2, 3), [(64, 96)])
                both = [model, load_model(sources["ensemble"].parent / "member_00" / file.name)]
                yield from predictions("two", deep_ensemble(both), [(64, 96)])


def record(only: Sequence[str] = ()) -> Arrays:
    """Everything, or the ensemble and some training runs, by name."""
    found = {} if only else dict(shipped())
    found.update(trained(only))
    return found


def differences(before: Arrays, after: Arrays) -> list[str]:
    """What is not equal, in words."""
    found = [f"{name}: only before" for name in sorted(set(before) - set(after))]
    found += [f"{name}: only after" for name in sorted(set(after) - set(before))]
    for name in sorted(set(before) & set(after)):
        one, two = before[name], after[name]
        if one.shape != two.shape or one.dtype != two.dtype:
            found.append(f"{name}: {one.dtype} {one.shape}, then {two.dtype} {two.shape}")
        elif one.dtype.kind in "iub":
            if not np.array_equal(one, two):
                found.append(f"{name}: {np.mean(one != two):.2%} of the values differ")
        elif not np.array_equal(np.isfinite(one), np.isfinite(two)):
            found.append(f"{name}: NaN elsewhere")
        else:
            finite = np.isfinite(one)
            error = np.abs(one - two)[finite].max(initial=0)
            scale = max(1.0, np.abs(one)[finite].max(initial=0))
            if error > TOLERANCE * scale:
                found.append(f"{name}: off by {error:.3g}, largest value {scale:.3g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("only", nargs="*", help="training runs, such as densemtl; default: all")
    arguments = parser.parse_args()
    found = record(arguments.only)
    if arguments.action == "record":
        np.savez_compressed(arguments.file, **found)
        print(f"{len(found)} arrays recorded")
        return
    with np.load(arguments.file) as stored:
        wrong = differences(dict(stored), found)
    print("\n".join([*wrong, f"{len(found)} arrays compared, {len(wrong)} differ"]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
