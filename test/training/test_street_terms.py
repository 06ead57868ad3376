"""What teaches where labels are missing: the road's plane, the teacher's depth; and when."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

import tiny

from emu_perception.data import Batch
from emu_perception.data.photometric import ColourJitter
from emu_perception.data.sample import DataError
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import Camera
from emu_perception.networks.rays import pixel_rays
from emu_perception.training import run
from emu_perception.training.builders import build_module
from emu_perception.training.data_module import DataModule
from emu_perception.training.modules import SupervisedModule
from emu_perception.training.targets import Outputs, Targets, Teacher


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def built(data: Path, out: Path, /, **changes: Any) -> tuple[Any, Batch]:
    config = tiny.config(data, out, **changes)
    batches = DataModule(config.data, ("semantic", "depth"), (64, 96), 0)
    spec = run.describe_model(config, batches.training.label_set)
    module = build_module(config, spec, run.build_network(config, spec))
    return module, next(iter(batches.train_dataloader()))


def at(module: SupervisedModule, share: float) -> None:
    """Let the module believe that this share of the training is done."""
    stand_in: Any = SimpleNamespace(
        global_step=round(1000 * share), estimated_stepping_batches=1000
    )
    module._trainer = stand_in


def test_rare_classes_count_more(data: Path, tmp_path: Path) -> None:
    module, batch = built(data, tmp_path, loss={"class_weights": {"floor": 5.0}})
    floor = module.spec.label_set.index("floor")
    batch["labels"][:] = 0 if floor else 1
    batch["labels"][..., :3, :] = floor
    logits = torch.zeros(2, 13, *batch["labels"].shape[-2:])
    logits[:, floor] = -1.0
    outputs = Outputs(logits, None, None)
    weight = torch.ones(13)
    weight[floor] = 5
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], weight)
    assert module.label_terms(outputs, batch)["cross_entropy"] == pytest.approx(expected.item())
    with pytest.raises(ValueError, match=r"loss\.class_weights: there is no class 'flor'"):
        built(data, tmp_path, loss={"class_weights": {"flor": 5.0}})


def test_the_likelihood_waits_until_there_is_a_mean(data: Path, tmp_path: Path) -> None:
    loss = {"gaussian_ramp": [0.2, 0.6], "log_weight": 2.0, "beta": 0.5}
    module, batch = built(data, tmp_path, loss=loss)
    module.train()
    outputs = module.outputs(batch)
    found = []
    for share in (0.1, 0.4, 0.9):
        at(module, share)
        found.append(module.label_terms(outputs, batch))
    assert found[0]["depth_gaussian"] == 0
    full = found[2]["depth_gaussian"]
    assert found[1]["depth_gaussian"].item() == pytest.approx(full.item() / 2, rel=1e-5)
    logs = [each["depth_log"].item() for each in found]
    assert logs[0] > 0 and logs == [logs[0]] * 3
    module.eval()  # whoever validates sees all of it
    at(module, 0.1)
    assert module.label_terms(outputs, batch)["depth_gaussian"] == full


def test_the_road_of_images_without_depth_is_flat_and_below_the_camera(
    data: Path, tmp_path: Path
) -> None:
    loss = {"ground_weight": 3.0, "ground_class": "floor", "camera_height": [1.4, 0.3]}
    module, batch = built(data, tmp_path, loss=loss)
    height, width = batch["image"].shape[-2:]
    intrinsics = torch.tensor([[40.0, 40.0, (width - 1) / 2, 0.0]]).repeat(2, 1)
    rays = pixel_rays(intrinsics, height, width)
    mean = 1.4 / (rays[..., 1] + 0.02)
    batch["labels"] = torch.full_like(batch["labels"], module.spec.label_set.index("floor"))
    batch["has_depth"] = torch.tensor([False, True])
    batch["intrinsics"], batch["has_intrinsics"] = intrinsics, torch.tensor([True, True])

    def ground(mean: torch.Tensor) -> float:
        logits = torch.zeros(2, 13, height, width)
        found = module.label_terms(Outputs(logits, mean, torch.ones_like(mean)), batch)
        return found["ground"].item() / 3

    pitch = 0.02 / math.tan(math.radians(3))  # the plane is (0, 1, 0.02) / 1.4
    flat = ground(mean)
    assert flat == pytest.approx(pitch**2 / 2, abs=1e-3)
    assert ground(2 * mean) > flat + 1  # a camera of 2.8 m
    assert ground(1.4 / (1 - rays[..., 1])) > 10  # a road overhead
    rough = mean * torch.exp(0.3 * torch.randn(mean.shape, generator=torch.manual_seed(0)))
    assert ground(rough) > flat + 0.1
    batch["has_depth"] = torch.tensor([True, True])
    assert ground(rough) == 0  # their own depth says more
    batch["has_depth"] = torch.tensor([False, True])
    batch["has_intrinsics"] = torch.tensor([False, False])
    batch["intrinsics"] = torch.full((2, 4), torch.nan)
    assert ground(2 * mean) == pytest.approx(0, abs=1e-3)  # an unknown camera has no height


def test_a_teacher_stands_in_for_missing_depth(data: Path, tmp_path: Path) -> None:
    teacher = run.train(
        tiny.config(data, tmp_path / "teacher", trainer={"epochs": 1}), progress=False
    )
    found = {}
    for weighted in (True, False):
        module, batch = built(
            data,
            tmp_path / "student",
            distillation={
                "teacher": [str(teacher)],
                "missing_depth_weight": 2.0,
                "weight_by_variance": weighted,
            },
        )
        outputs = module.outputs(batch)
        targets = module.teacher(batch["image"], batch["seed"])
        assert targets.mean is not None
        batch["has_depth"] = torch.tensor([True, True])
        assert module.terms(outputs, batch)["missing_depth"] == 0
        batch["has_depth"] = torch.tensor([False, True])
        found[weighted] = module.terms(outputs, batch)["missing_depth"].item()
        as_teacher = Outputs(outputs.logits, targets.mean, outputs.variance)
        assert module.terms(as_teacher, batch)["missing_depth"].item() == pytest.approx(0, abs=1e-9)
        # What the second image's teacher says is not asked for: it has depth.
        changed = targets.mean.clone()
        changed[1] *= 2
        loss = module._missing_depth(outputs.mean, targets._replace(mean=changed), batch)
        assert 2 * loss.item() == pytest.approx(found[weighted], rel=1e-5)
    assert found[True] > 0 and found[False] > 0 and found[True] != found[False]


def test_the_sky_has_no_depth_to_be_taught(data: Path, tmp_path: Path) -> None:
    teacher = run.train(
        tiny.config(data, tmp_path / "teacher", trainer={"epochs": 1}), progress=False
    )
    distillation = {"teacher": [str(teacher)], "missing_depth_weight": 1.0}
    module, batch = built(data, tmp_path / "student", distillation=distillation)
    labels = module.spec.label_set
    sky = replace(labels, without_depth=(labels.names[0],))
    module.spec = module.spec.model_copy(update={"label_set": sky})
    batch["has_depth"] = torch.tensor([False, False])
    mean = torch.full(batch["labels"].shape, 4.0)
    probabilities = torch.zeros(2, 13, *mean.shape[1:])
    probabilities[:, 0] = 1.0
    targets = Targets(probabilities, mean=mean, variance=torch.ones_like(mean))
    assert module._missing_depth(2 * mean, targets, batch) == 0
    targets = targets._replace(probabilities=probabilities.roll(1, 1))
    assert module._missing_depth(2 * mean, targets, batch) > 0
    # The range is in metres: twice the canonical focal length sees 4 as 8, thrice as 12 of 10.
    camera = Camera(canonical_focal_length=60.0, assumed_focal_ratio=1.0)
    module.spec = module.spec.model_copy(update={"camera": camera})
    batch["has_intrinsics"][:] = True
    for times, taught in ((2, True), (3, False)):
        batch["intrinsics"] = torch.tensor([[60.0 * times, 60.0 * times, 0.0, 0.0]]).repeat(2, 1)
        assert (module._missing_depth(2 * mean, targets, batch) > 0) == taught


def test_the_error_of_validation_is_in_metres(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmentation = {"augmentation": {"scale_changes": "camera"}}
    model = {"canonical_focal_length": 60.0}
    module, batch = built(data, tmp_path, model=model, data=augmentation)
    batch["intrinsics"] = torch.tensor([[30.0, 30.0, 0.0, 0.0], [120.0, 120.0, 0.0, 0.0]])
    batch["has_intrinsics"][:] = True
    batch["depth"][:] = torch.tensor([5.0, 8.0])[:, None, None]  # canonical: 10 and 4
    batch["depth_valid"][:] = True
    mean = torch.tensor([14.0, 5.0])[:, None, None].expand_as(batch["depth"])  # metres: 7 and 10
    logged: dict[str, Any] = {}
    monkeypatch.setattr(module, "examine", lambda _: (Outputs(None, mean, None), mean.mean()))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda found, **_: logged.update(found))
    monkeypatch.setattr(module, "all_gather", lambda values: values)
    module.on_validation_epoch_start()
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert logged["validation/rmse"].item() == pytest.approx(2.0)


def test_norms_keep_their_statistics_once_they_are_frozen(data: Path, tmp_path: Path) -> None:
    statistics = {}
    for share in (None, 0.0):
        config = tiny.config(
            data,
            tmp_path / str(share),
            trainer={"epochs": 1, "freeze_norms_from": share},
        )
        file = run.train(config, progress=False)
        state = run.load_model(file).network.state_dict()
        statistics[share] = [v for k, v in state.items() if k.endswith("running_mean")]
    assert statistics[0.0] and all((each == 0).all() for each in statistics[0.0])
    assert not any((each == 0).all() for each in statistics[None])


def test_rays_reach_network_and_teacher(data: Path, tmp_path: Path) -> None:
    model = {"arguments": {"width": 8, "rays": True}, "canonical_focal_length": 60.0}
    cameras = {"augmentation": {"scale_changes": "camera"}}
    module, batch = built(data, tmp_path / "student", model=model, data=cameras)
    module.eval()
    batch["intrinsics"] = torch.tensor([[50.0, 50.0, 32.0, 16.0]]).repeat(2, 1)
    batch["has_intrinsics"][:] = True
    before = module.outputs(batch).mean
    teacher = Teacher(LoadedModel(module.network, module.spec, Path("memory")), ColourJitter())
    said = teacher(batch["image"], batch["seed"], batch["intrinsics"]).mean
    batch["intrinsics"][:, 3] -= 20  # looks further down
    assert not torch.allclose(module.outputs(batch).mean, before)
    assert not torch.allclose(
        teacher(batch["image"], batch["seed"], batch["intrinsics"]).mean, said
    )
    batch["has_intrinsics"][1] = False
    with pytest.raises(DataError, match=f"'{batch['name'][1]}' has none"):
        module.outputs(batch)
    with pytest.raises(ValueError, match="rays needs model"):
        built(data, tmp_path / "no", model={"arguments": {"rays": True}})


def test_a_ground_class_that_the_data_lack_is_refused_before_training(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"needs the class 'road'.*the classes are .*floor"):
        built(data, tmp_path, loss={"ground_weight": 1.0})
