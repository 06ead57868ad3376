"""Depth from image sequences: the geometry, what the loss is least for, and a run."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

pytest.importorskip("lightning")
from emu_perception.data import build_dataset, collate
from emu_perception.data.augmentation import Augmentation, flip
from emu_perception.data.sample import DataError
from emu_perception.evaluation.median import scaled_to_median
from emu_perception.experiments.table import compare
from emu_perception.experiments.table_config import TableConfig, TableRow
from emu_perception.inference.model_file import load_model
from emu_perception.labels import load_label_set
from emu_perception.networks.pose import rigid_transform
from emu_perception.networks.raw_outputs import DenseOutputs
from emu_perception.prediction import Prediction
from emu_perception.resources import find_resource
from emu_perception.scenes import StreetDrive
from emu_perception.training import run
from emu_perception.training.config import TrainConfig
from emu_perception.training.multitask.self_supervised import SelfSupervisedModule
from emu_perception.training.multitask.view_synthesis import (
    dissimilarity,
    photometric_error,
    reprojection_loss,
    smoothness,
    synthesize,
)

CAMERA = torch.tensor([[50.0, 60.0, 15.5, 7.5]])


def texture(seed: int = 0) -> Tensor:
    """A smooth `(1, 3, 24, 40)` image."""
    noise = torch.rand(1, 3, 6, 10, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (24, 40), mode="bicubic").clamp(0, 1)


def test_a_wall_seen_from_the_side_moves_by_whole_pixels() -> None:
    image, depth = texture(), torch.full((1, 24, 40), 4.0)
    # The other camera stands 2 pixels x 4 m / 50 to the left and 3 x 4 m / 60 above.
    motion = rigid_transform(torch.zeros(1, 3), torch.tensor([[2 * 4 / 50, 3 * 4 / 60, 0.0]]))
    found = synthesize(image, depth, CAMERA, motion)
    assert torch.allclose(found[:, :, :-3, :-2], image[:, :, 3:, 2:], atol=1e-5)
    still = synthesize(image, depth, CAMERA, torch.eye(4)[None])
    assert torch.allclose(still, image, atol=1e-5)


def test_mixed_precision_moves_no_pixel() -> None:
    wide = torch.nn.functional.interpolate(texture(), (48, 512), mode="bicubic")
    camera = torch.tensor([[400.0, 400.0, 255.5, 23.5]])
    depth = torch.rand(1, 48, 512) + 4
    motion = rigid_transform(torch.full((1, 3), 0.02), torch.full((1, 3), 0.3))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = synthesize(wide, depth, camera, motion)
    assert torch.equal(mixed, synthesize(wide, depth, camera, motion))


def test_rotations_are_right_handed() -> None:
    turn = rigid_transform(torch.tensor([[0.0, torch.pi / 2, 0.0]]), torch.ones(1, 3))[0]
    moved = turn @ torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert torch.allclose(moved, torch.tensor([2.0, 1.0, 1.0, 1.0]), atol=1e-6)


def test_the_loss_is_least_at_the_true_depth() -> None:
    target, true = texture(), 4.0
    motion = rigid_transform(torch.zeros(1, 3), torch.tensor([[0.3, 0.0, 0.0]]))
    # What the other camera sees: the same wall, which it is 0.3 m to the left of.
    back = torch.linalg.inv(motion)
    other = synthesize(target, torch.full((1, 24, 40), true), CAMERA, back)
    found = {}
    for metres in (2.0, 3.0, 4.0, 5.5, 8.0):
        depth = torch.full((1, 24, 40), metres, requires_grad=True)
        loss = reprojection_loss(target, [synthesize(other, depth, CAMERA, motion)], [other])
        loss.sum().backward()
        found[metres] = loss.item()
        if metres != true:  # downhill is towards the truth
            assert (depth.grad.sum() > 0) == (metres > true)
    assert min(found, key=found.get) == true and found[true] < 0.3 * found[2.0]


def test_what_stands_still_tells_nothing() -> None:
    target = texture()
    depth = torch.full((1, 24, 40), 4.0, requires_grad=True)
    motion = rigid_transform(torch.zeros(1, 3), torch.tensor([[0.3, 0.0, 0.0]]))

    def gradient(source: Tensor) -> float:
        views = [synthesize(target, depth, CAMERA, motion)]
        (found,) = torch.autograd.grad(reprojection_loss(target, views, [source]).sum(), depth)
        return found.abs().max().item()

    assert gradient(target) < 1e-4 < gradient(texture(1))


def test_errors_of_images() -> None:
    first, second = texture(), texture(1)
    assert dissimilarity(first, first).abs().max() < 1e-6
    assert photometric_error(first, first).abs().max() < 1e-6
    assert 0 < photometric_error(first, second).mean() < 1
    plane = torch.linspace(1, 2, 40).expand(1, 24, 40)
    assert smoothness(torch.full((1, 24, 40), 3.0), first).item() == 0
    flat = torch.zeros(1, 3, 24, 40)
    assert smoothness(1 / plane, flat).item() == pytest.approx(1 / 39 / 1.5, rel=1e-4)
    assert smoothness(1 / plane, first).item() < smoothness(1 / plane, flat).item()


class KnownPose(nn.Module):
    """The camera moves to the right by a known step from image to image."""

    def __init__(self, images: list[Tensor], step: float) -> None:
        super().__init__()
        self.images, self.step = images, step

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        here, there = (
            next(i for i, known in enumerate(self.images) if torch.equal(image, known))
            for image in (first, second)
        )
        # What the camera comes nearer to on its right lies further left in its frame.
        return rigid_transform(
            torch.zeros(1, 3), torch.tensor([[-self.step * (there - here), 0.0, 0.0]])
        )


@pytest.mark.parametrize("only", ["before", "after"])
def test_each_neighbour_is_related_by_the_motion_that_led_to_it(tmp_path: Path, only: str) -> None:
    config = TrainConfig.model_validate(settings(tmp_path, tmp_path / "run"))
    spec = run.describe_model(config, load_label_set("camvid"))
    module = SelfSupervisedModule(config, spec, spec.build())
    # A wall 4 m ahead: at 50 pixels of focal length, 0.16 m to the right move it 2 pixels left.
    wide = torch.nn.functional.pad(texture(), (4, 4, 0, 0), mode="replicate")
    views = {"before": wide[..., 2:-6], "here": wide[..., 4:-4], "after": wide[..., 6:-2]}
    # One neighbour alone has to explain the image; the other shows something else.
    views[{"before": "after", "after": "before"}[only]] = texture(1)
    images = {name: (255 * view).to(torch.uint8) for name, view in views.items()}
    module.pose = KnownPose([module.normalization(image) for image in images.values()], 0.16)
    batch = {
        "image": images["here"],
        "neighbours": torch.stack([images["before"], images["after"]], 1),
        "intrinsics": CAMERA,
        "has_intrinsics": torch.tensor([True]),
    }
    losses = {}
    for metres in (2.0, 4.0, 8.0):
        raw = module.network.unit.encode(torch.full((1, 1, 24, 40), metres))
        losses[metres] = module.depth_loss(DenseOutputs(({"depth": raw},), {}), batch).item()
    assert losses[4.0] < 0.3 * min(losses[2.0], losses[8.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drives")


def test_a_rendered_frame_is_made_from_its_neighbours(folder: Path) -> None:
    drives = build_dataset("scene_drives", folder, "train", drives=1, frames=4, size=(64, 96))
    assert drives.sequences and len(drives) == 2
    assert drives.name(1) == "train_0_0000_0002"
    sample = drives[0]
    sample.check(11)
    assert sample.tasks == ("semantic", "depth", "normals", "edges")
    assert np.array_equal(sample.neighbours[1], drives[1].image)
    poses = StreetDrive(drives.drive_seed(0), (64, 96), 4).poses
    batch = collate([sample], drives.tasks)
    image = batch["image"].float() / 255
    ground = batch["depth_valid"] & (batch["depth"] < 40)
    for number, neighbour in ((0, batch["neighbours"][:, 0]), (2, batch["neighbours"][:, 1])):
        motion = torch.from_numpy(np.linalg.inv(poses[number]) @ poses[1]).float()[None]
        source = neighbour.float() / 255
        made = synthesize(source, batch["depth"], batch["intrinsics"], motion)
        farther = synthesize(source, 2 * batch["depth"], batch["intrinsics"], motion)
        # Medians: what is hidden in the neighbour, and other traffic, cannot be made from it.
        error, unchanged, wrong = (
            photometric_error(view, image)[ground].median() for view in (made, source, farther)
        )
        assert error < 0.65 * unchanged and error < 0.85 * wrong


def test_neighbours_are_augmented_with_their_image(folder: Path) -> None:
    sample = build_dataset(
        "scene_drives", folder, "train", drives=1, frames=4, size=(64, 96)
    )[0]  # fmt: skip
    same = np.stack([sample.image, sample.image])
    still = type(sample)("", "", sample.image, neighbours=(same[0], same[1]))
    augmentation = Augmentation((40, 48), scale=(0.7, 1.3), flip_probability=1.0)
    found = augmentation(still, np.random.default_rng(0))
    assert found.image.shape == (40, 48, 3)
    assert all(np.array_equal(found.image, each) for each in found.neighbours)


@pytest.fixture(scope="module")
def video(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered drive as a video with poses."""
    root = tmp_path_factory.mktemp("video")
    (root / "images").mkdir()
    drives = build_dataset("scene_drives", folder, "train", drives=1, frames=4, size=(64, 96))
    camera = drives[0].intrinsics
    frames = [drives[0].neighbours[0], drives[0].image, drives[1].image, drives[1].neighbours[1]]
    for number, image in enumerate(frames):
        cv2.imwrite(str(root / "images" / f"{number:03d}.png"), image[..., ::-1])
    values = [camera.fx, camera.fy, camera.cx, camera.cy]
    (root / "intrinsics.json").write_text(json.dumps({"all": values}))
    poses = StreetDrive(drives.drive_seed(0), (64, 96), 4).poses
    np.savetxt(root / "poses.txt", np.stack(list(poses))[:, :3].reshape(-1, 12))
    return root


@pytest.mark.parametrize("mirrored", [False, True])
def test_given_poses_teach_metres(
    folder: Path, video: Path, tmp_path: Path, mirrored: bool
) -> None:
    values = settings(folder, tmp_path / "run")
    values["multitask"]["self_supervision"] = {"poses": "given"}
    config = TrainConfig.model_validate(values)
    spec = run.describe_model(config, load_label_set("camvid"))
    module = SelfSupervisedModule(config, spec, spec.build())
    assert module.pose is None and len(module.optimizer_groups()) == 2
    samples = list(build_dataset("video", video, "all", poses=True))
    drives = build_dataset("scene_drives", folder, "train", drives=1, frames=4, size=(64, 96))
    true = [drive.depth for drive in drives]
    if mirrored:
        samples = [flip(sample) for sample in samples]
        true = [np.ascontiguousarray(depth[:, ::-1]) for depth in true]
    batch = collate(samples, ())
    depth = torch.from_numpy(np.stack(true))[:, None]
    depth = torch.where(depth > 0, depth, 80.0)  # the sky
    losses = {}
    for factor in (0.6, 1.0, 1.7):
        raw = module.network.unit.encode(factor * depth)
        losses[factor] = module.depth_loss(DenseOutputs(({"depth": raw},), {}), batch).item()
    assert losses[1.0] < 0.95 * min(losses[0.6], losses[1.7])
    # Without poses there is nothing to learn from.
    plain = collate(list(build_dataset("video", video, "all")), ())
    found = module.depth_loss(DenseOutputs(({"depth": raw.requires_grad_()},), {}), plain)
    assert found.item() == 0 and found.requires_grad


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("poses.txt", "1 2 3\n", "expected .4, 12"),
        ("poses.txt", "1 0 0 0 0 1 0 0 0 0 1\n" * 4, "expected .4, 12"),
        ("intrinsics.json", '{"all": [1, 2, 3]}', "needs 'all'"),
    ],
)
def test_a_video_names_the_file_that_is_wrong(
    video: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    root = Path(shutil.copytree(video, tmp_path / "video"))
    (root / name).write_text(text)
    with pytest.raises(DataError, match=message) as found:
        build_dataset("video", root, "all", poses=True)
    assert name in str(found.value)


def settings(folder: Path, out: Path) -> dict:
    path = find_resource("config", "train", "scenes", "densemtl_drives_sd.yaml")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for split in (values["data"]["train"][0], values["data"]["validation"]):
        split |= {"root": str(folder), "split": "train"}
        split["options"] = {"drives": 1, "frames": 4, "size": [64, 96]}
    values["data"] |= {"crop": [64, 96], "batch_size": 2, "workers": 0}
    values["model"] |= {"backbone": "resnet10t", "encoder_weights": None, "input_size": [64, 96]}
    values["model"]["arguments"]["width"] = 0.25
    values["multitask"]["self_supervision"] = {"pose_backbone": "resnet10t"}
    values["trainer"] = {"epochs": 1, "accelerator": "cpu", "devices": 1}
    return values | {"output": str(out)}


def test_depth_is_learnt_without_its_labels(folder: Path, tmp_path: Path) -> None:
    values = settings(folder, tmp_path / "run")
    model = load_model(run.train(TrainConfig.model_validate(values), progress=False))
    assert not any("pose" in name for name in model.network.state_dict())
    figures = model.spec.metrics["scene_drives train"]
    assert {"miou", "rmse", "loss"} <= figures.keys() and np.isfinite(list(figures.values())).all()
    data = TrainConfig.model_validate(values).data.train[0]
    rows = [
        TableRow(name=str(scaled), models=[str(model.path)], median_scaled=scaled)
        for scaled in (False, True)
    ]
    table = TableConfig(data=data, rows=rows)
    as_it_is, scaled = compare(table, device="cpu", engine="pytorch", replicates=0)
    assert as_it_is["semantic"]["miou"] == scaled["semantic"]["miou"]
    assert as_it_is["depth"]["rmse"] != scaled["depth"]["rmse"]


def test_scaling_to_the_median_by_hand() -> None:
    depth = np.array([[2.0, 4.0], [np.nan, 8.0]], np.float32)
    labels = np.array([[6.0, 12.0], [5.0, 200.0]], np.float32)  # 200 m is beyond the range
    found = scaled_to_median(Prediction(depth=depth, depth_variance=depth), labels, (0.1, 100.0))
    np.testing.assert_allclose(found.depth, 3 * depth, rtol=1e-6)
    np.testing.assert_allclose(found.depth_variance, 9 * depth, rtol=1e-6)
    nothing = np.zeros_like(labels)
    assert scaled_to_median(found, nothing, (0.1, 100.0)) is found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"tasks": ["semantic"]}}, "model.tasks lacks it"),
        ({"data": {"augmentation": {"scale_changes": "nothing"}}}, "needs cameras"),
        ({"data": {"augmentation": {"photometric": {}}}}, "photometric: null"),
        ({"multitask": {"partial": {}}}, "partial and multitask.self_supervision exclude"),
        ({"model": {"arguments": {"depth_variance": True}}}, "depth_variance: false"),
        ({"data": {"train": "scenes"}}, "needs image sequences, which none of scenes train has"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_suit_is_refused(
    folder: Path, tmp_path: Path, change: dict, message: str
) -> None:
    values = settings(folder, tmp_path / "run")
    for group, changed in change.items():
        values[group] |= changed
    if values["data"]["train"] == "scenes":
        values["data"]["train"] = [{"name": "scenes", "split": "train"}]
    with pytest.raises(ValueError, match=message):
        run.train(TrainConfig.model_validate(values), progress=False)
