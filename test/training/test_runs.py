"""Training runs end to end: files, ensembles, students, and what a power cut leaves."""

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

pytest.importorskip("lightning")

import lightning
import tiny

from emu_perception.cli import app
from emu_perception.data import Batch, build_dataset
from emu_perception.inference.model_file import load_model
from emu_perception.inference.predictor import Predictor
from emu_perception.prediction import Prediction
from emu_perception.training import run
from emu_perception.training.builders import build_module
from emu_perception.training.callbacks import MovingAverage, Pictures, moving_average
from emu_perception.training.data_module import DataModule, open_dataset
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.settings import ConfigError
from emu_perception.training.targets import Outputs


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def ensemble(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.config(data, tmp_path_factory.mktemp("ensemble"), trainer={"epochs": 1})
    return run.train_ensemble(config, 2, progress=False)


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_model(file).network.state_dict()


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_gives_a_model_file_that_predicts(data: Path, tmp_path: Path) -> None:
    split = {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}}
    config = tiny.config(
        data,
        tmp_path / "run",
        data={"validation": split},
        trainer={"picture_every": 1, "ema_decay": 0.5},
    )
    file = run.train(config, progress=False)
    spec = load_model(file).spec
    assert spec.label_set.name == "nyuv2_13" and spec.metrics["training"]["steps"] == 6
    assert {"loss", "miou", "rmse"} <= spec.metrics["nyuv2 all"].keys()
    image = np.zeros((72, 96, 3), np.uint8)
    assert Predictor.from_pretrained(file, "cpu", engine="pytorch").predict(image).depth.shape == (
        72,
        96,
    )
    curves = list((tmp_path / "run" / "curves").glob("events*"))
    assert len(curves) == 1 and b"dead_depth_pixels" in curves[0].read_bytes()
    assert b"PNG" in curves[0].read_bytes()

    written = file.stat().st_mtime_ns
    assert run.train(config, progress=False) == file and file.stat().st_mtime_ns == written
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(ConfigError, match=r"other settings \(seed\)"):
        run.train(other, progress=False)

    # A checkpoint that is named is gone on from, whatever the folder holds.
    before, last = weights(file), file.parent / "checkpoints" / "last.ckpt"
    run.train(config, str(last), progress=False)
    after = weights(file)
    assert file.stat().st_mtime_ns > written
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    checkpoint = torch.load(last, weights_only=False)
    torch.save({**checkpoint, "processes": 2}, last)
    with pytest.raises(ConfigError, match="began with 2 processes and would go on with 1"):
        run.train(config, str(last), progress=False)
    with pytest.raises(ConfigError, match="no checkpoint"):
        run.train(config, str(last.with_name("first.ckpt")), progress=False)
    with pytest.raises(ConfigError, match="a checkpoint of its own"):
        run.train_ensemble(config, 2, str(last), progress=False)


@pytest.mark.parametrize("text", ["", "output: x\nmodel:\n", "output: [1"])
def test_settings_that_were_cut_short_are_named(data: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / run.CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml does not hold a run's settings"):
        run.train(tiny.config(data, tmp_path), progress=False)


def test_a_file_holds_the_figures_of_its_own_weights(data: Path, tmp_path: Path) -> None:
    split = {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}}

    def figures(name: str, every: int) -> dict[str, float]:
        settings = {"epochs": 3, "validate_every": every, "ema_decay": 0.5}
        changes = {"data": {"validation": split}, "trainer": settings}
        config = tiny.config(data, tmp_path / name, **changes)
        found = load_model(run.train(config, progress=False)).spec.metrics["nyuv2 all"]
        # Gone on from the last checkpoint, as if cut before the file was written.
        (tmp_path / name / run.MODEL_FILE).unlink()
        again = load_model(run.train(config, progress=False)).spec.metrics["nyuv2 all"]
        assert again == pytest.approx(found, rel=1e-5)
        return found

    each = figures("each", 1)
    assert figures("second", 2) == pytest.approx(each, rel=1e-5)
    assert figures("none", 4) == pytest.approx(each, rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_any_precision(data: Path, tmp_path: Path, precision: str) -> None:
    settings = {"epochs": 1, "precision": precision, "ema_decay": 0.5}
    optimizer = {"learning_rate": 1e-3, "clip_norm": 0.1}
    config = tiny.config(data, tmp_path, optimizer=optimizer, trainer=settings)
    assert load_model(run.train(config, progress=False)).spec.metrics["training"]["steps"] == 3


def test_the_average_is_where_the_module_will_be(data: Path, tmp_path: Path) -> None:
    config = tiny.config(data, tmp_path)
    label_set = DataModule(config.data, ("semantic", "depth"), (64, 96), 0).training.label_set
    spec = run.describe_model(config, label_set)
    module = build_module(config, spec, run.build_network(config, spec))
    average = MovingAverage(0.9)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    average.setup(trainer, module, "fit")
    assert all(value.is_meta for value in average._average_model.module.network.parameters())


def test_pictures_take_the_whole_batch_to_the_device(data: Path) -> None:
    class Elsewhere(lightning.LightningModule):
        device = torch.device("meta")

        def outputs(self, batch: Batch) -> Outputs:
            tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
            assert len(tensors) > 2 and all(value.is_meta for value in tensors)
            return Outputs(None, None, None)

    dataset = build_dataset("nyuv2", data, "all", classes=13)
    assert Pictures(dataset, 1)._predict(Elsewhere(), 0) == Prediction()


def test_an_average_forgets_its_beginning() -> None:
    norm = torch.nn.BatchNorm1d(1)  # begins with a variance of one
    averaged = AveragedModel(norm, multi_avg_fn=moving_average(0.998), use_buffers=True)
    seen = []
    for step in range(400):
        norm.running_var.fill_(0.01 if step else 1.0)
        averaged.update_parameters(norm)
        seen.append(averaged.module.running_var.item())
    assert seen[0] == 1 and seen[20] < 0.05 and seen[-1] == pytest.approx(0.01, rel=1e-3)
    # Later it averages as it was told to.
    late = torch.zeros(3)
    moving_average(0.998)([late], [torch.ones(3)], torch.tensor(10_000))
    assert late.tolist() == pytest.approx([0.002] * 3, rel=1e-4)


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_at_any_moment_and_resumed_gives_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    epochs = {"trainer": {"epochs": 4, "ema_decay": 0.9}, "data": {"workers": workers}}
    reference = run.train(tiny.config(data, tmp_path / "whole", **epochs), progress=False)

    cut = tmp_path / "cut"
    file = tmp_path / "cut.yaml"
    file.write_text(yaml.safe_dump(tiny.values(data, cut, **epochs)), encoding="utf-8")
    # In one of the steps after the first checkpoint, or a moment later.
    step, delay = random.randrange(3, 9), random.random() * 0.02
    code = (
        "import os, signal, sys, threading, torch; torch.set_num_threads(1);"
        "from emu_perception.training.config_file import load_config;"
        "from emu_perception.training.modules import SupervisedModule as Module;"
        "from emu_perception.training.run import train;"
        "begin = Module.on_train_batch_start;"
        f"kill = threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL));"
        "Module.on_train_batch_start = lambda self, *args: ("
        f"self.trainer.global_step == {step} and kill.start(), begin(self, *args))[1];"
        "train(load_config(sys.argv[1]), progress=False)"
    )
    victim = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert victim.returncode == -signal.SIGKILL and not (cut / run.MODEL_FILE).exists()
    done = torch.load(cut / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    steps = []
    begin = SupervisedModule.on_train_batch_start
    monkeypatch.setattr(
        SupervisedModule, "on_train_batch_start", lambda *args: (steps.append(1), begin(*args))[1]
    )
    continued = run.train(tiny.config(data, cut, **epochs), progress=False)
    assert same(reference, continued)
    assert 0 < done < 12 and len(steps) == 12 - done
    continued.unlink()  # as if cut between the last checkpoint and the model file
    assert same(reference, run.train(tiny.config(data, cut, **epochs), progress=False))


def test_finished_members_are_skipped(ensemble: Path, data: Path) -> None:
    folder = ensemble.parent
    first, second = (folder / f"member_{i:02d}" / run.MODEL_FILE for i in range(2))
    assert not same(first, second)
    kept, before = first.stat().st_mtime_ns, weights(second)
    second.unlink()
    (second.parent / "checkpoints" / "last.ckpt").unlink()
    config = tiny.config(data, folder, trainer={"epochs": 1})
    run.train_ensemble(config, 2, progress=False)
    assert first.stat().st_mtime_ns == kept
    again = weights(second)
    assert all(torch.equal(before[name], again[name]) for name in before)
    assert load_model(ensemble).spec.arguments["members"] == 2


@pytest.mark.parametrize("split", [False, True])
def test_a_student_learns_from_a_frozen_teacher(
    ensemble: Path, data: Path, tmp_path: Path, split: bool
) -> None:
    taught = weights(ensemble)
    start = ensemble.parent / "member_00" / run.MODEL_FILE
    config = tiny.config(
        data,
        tmp_path,
        model={
            "arguments": {**tiny.ARGUMENTS, "split_uncertainty": split},
            "start_from": str(start),
        },
        trainer={"epochs": 1},
        distillation={"teacher": [str(ensemble)]},
    )
    file = run.train(config, progress=False)
    assert Predictor.from_pretrained(file, "cpu", engine="pytorch").available_maps >= (
        {"semantic_epistemic", "depth_epistemic"} if split else {"depth"}
    )
    assert all(torch.equal(v, taught[k]) for k, v in weights(ensemble).items())
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert not any("teacher" in name for name in saved["state_dict"])
    curves = next((tmp_path / "curves").glob("events*")).read_bytes()
    assert b"train/kl" in curves
    name = b"train/rmsle_epistemic_variance" if split else b"train/rmsle_variance"
    assert name in curves


def test_a_student_learns_from_partial_labels(ensemble: Path, data: Path, tmp_path: Path) -> None:
    kept = {"regime": "ratio", "ratio": [1, 2]}
    split = {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}}
    config = tiny.config(
        data,
        tmp_path / "student",
        seed=3,
        data={"train": [{**split, "annotation": kept}]},
        distillation={"teacher": [str(ensemble)]},
        trainer={"epochs": 1},
    )
    trained = weights(run.train(config, progress=False))
    assert all(torch.isfinite(value).all() for value in trained.values())
    stored = json.loads((tmp_path / "student" / "annotation_0.json").read_text())
    assert (stored["seed"], stored["ratio"]) == (3, [1.0, 2.0])
    assert Counter(map(tuple, stored["images"].values())) == {("semantic",): 2, ("depth",): 4}
    # A run that starts anew draws anew; members of an ensemble share one annotation.
    again = config.model_copy(update={"seed": 4})
    module = DataModule(again.data, ("semantic", "depth"), (64, 96), 4, tmp_path / "other")
    assert {sample.tasks for sample in module.training} == {("semantic",), ("depth",)}
    assert config.with_annotation_seed(8).data.train[0].annotation.seed == 8
    with pytest.raises(ValueError, match="annotation hides labels of training data"):
        open_dataset(config.data.train[0])
    with pytest.raises(ValueError, match="not those to judge by"):
        tiny.config(data, tmp_path, data={"validation": {**split, "annotation": kept}})


def test_segdepthformer_takes_a_weighting_of_its_tasks(data: Path, tmp_path: Path) -> None:
    losses = {}
    for name in ("fixed", "uncertainty", "pcgrad"):
        config = tiny.config(
            data,
            tmp_path,
            model={"arguments": {**tiny.ARGUMENTS, "depth_variance": False}},
            loss={"depth": "huber"},
            multitask={"weighting": {"name": name}},
        )
        batches = DataModule(config.data, ("semantic", "depth"), (64, 96), 0)
        spec = run.describe_model(config, batches.training.label_set)
        module = build_module(config, spec, run.build_network(config, spec))
        torch.manual_seed(0)
        losses[name] = module.training_step(next(iter(batches.train_dataloader())), 0)
    # Log-variances of 0 halve both tasks' losses.
    assert losses["uncertainty"].item() == pytest.approx(losses["fixed"].item() / 2, rel=1e-4)
    losses["pcgrad"].backward()
    gradients = [p.grad for p in module.network.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(each).all() for each in gradients)
    config = tiny.config(data, tmp_path, multitask={"weighting": {"name": "gradnorm"}})
    with pytest.raises(ValueError, match=r"'gradnorm' needs .* loss.depth: gaussian can be"):
        build_module(config, spec, run.build_network(config, spec))


def test_a_step_of_the_sub_ensemble_trains_one_pair(data: Path, tmp_path: Path) -> None:
    config = tiny.config(
        data,
        tmp_path,
        model={
            "architecture": "deep_sub_ensemble",
            "arguments": {"width": 8, "members": 4},
        },
        optimizer={"weight_decay": 0.0},
        trainer={"epochs": 1},
    )
    trained = weights(run.train(config, progress=False))
    spec = run.describe_model(config, load_model(tmp_path / run.MODEL_FILE).spec.label_set)
    start = run.build_network(config, spec).state_dict()
    changed = [
        not torch.equal(trained[name], start[name])
        for name in (f"members.{i}.semantic.predict.weight" for i in range(4))
    ]
    assert changed == [True, True, True, False]  # three steps


def test_a_sub_ensemble_is_validated_by_all_members(data: Path, tmp_path: Path) -> None:
    config = tiny.config(
        data,
        tmp_path,
        model={"architecture": "deep_sub_ensemble", "arguments": {"width": 8, "members": 2}},
    )
    batches = DataModule(config.data, ("semantic", "depth"), (64, 96), 0)
    spec = run.describe_model(config, batches.training.label_set)
    network = run.build_network(config, spec)
    inverse_softplus = torch.log(torch.expm1(torch.tensor([0.5, 0.7])))
    for i, mean in enumerate((1.0, 3.0)):
        head = network.decoders_of("depth")[i].predict
        head.weight.data.zero_()
        head.bias.data.copy_(torch.stack([torch.tensor(mean), inverse_softplus[i]]))
        scores = network.decoders_of("semantic")[i].predict
        scores.weight.data.zero_()
        scores.bias.data.zero_()
        scores.bias.data[i] = 50.0  # each is sure of another class
    module = build_module(config, spec, network).eval()
    with torch.no_grad():
        outputs = module.outputs(next(iter(batches.train_dataloader())))
    assert torch.allclose(outputs.mean, torch.tensor(2.0))
    assert torch.allclose(outputs.variance, torch.tensor(1.6))
    chances = torch.softmax(outputs.logits, dim=1)[0, :, 0, 0]
    assert chances[:3].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


def test_what_cannot_be_started_from_is_refused(data: Path, tmp_path: Path) -> None:
    config = tiny.config(data, tmp_path, model={"encoder_weights": str(tmp_path / "no.pth")})
    with pytest.raises((ValueError, OSError), match=r"no\.pth"):
        run.train(config, progress=False)


def test_the_command_line_trains_and_distills(ensemble: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    values = tiny.values(data, tmp_path / "unused", trainer={"epochs": 1})
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["train", "--config", str(file), "--out", str(out), "--seed", "3"]
    )
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((out / "config.yaml").read_text())["seed"] == 3
    assert not (tmp_path / "unused").exists()
    student = CliRunner().invoke(app, ["distill", "--config", str(file)])
    assert isinstance(student.exception, ConfigError)
    assert "names no teacher" in str(student.exception)
    start = str(out / run.MODEL_FILE)
    taught = tmp_path / "taught"
    student = CliRunner().invoke(
        app,
        ["distill", "-c", str(file), "-t", str(ensemble), "--start-from", start, "-o", str(taught)],
    )
    assert student.exit_code == 0, student.output
    assert (taught / run.MODEL_FILE).is_file()
    members = CliRunner().invoke(app, ["train", "ensemble"])
    assert members.exit_code == 2 and "--config" in members.output
