"""Every method at inference gives the same kind of prediction, epistemic parts included."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from emu_perception.camera import Intrinsics
from emu_perception.data.photometric import ColourJitter
from emu_perception.inference.methods import deep_ensemble
from emu_perception.inference.model_file import LoadedModel, load_model, save_model
from emu_perception.inference.model_spec import Calibration, Camera, ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.networks.architectures import build_network
from emu_perception.training.targets import Teacher
from emu_perception.uncertainty import activate_depth, depth_maps, semantic_maps

EPISTEMIC = {"semantic_epistemic", "depth_epistemic"}
METHODS = {
    "deep_ensemble": {"members": 3},
    "deep_sub_ensemble": {"members": 3},
    "monte_carlo_dropout": {"samples": 3, "dropout": 0.3},
    "segdepthformer": {"split_uncertainty": True},
}


def model(architecture: str, **changes: object) -> LoadedModel:
    torch.manual_seed(5)
    spec = ModelSpec(
        architecture=architecture,
        backbone="mit_b0",
        arguments={"width": 16, **METHODS[architecture]},
        **{
            "tasks": ("semantic", "depth"),
            "label_set": load_label_set("nyuv2_13"),
            "input_size": (64, 96),
            "depth_range": (0.1, 1000.0),
        }
        | changes,
    )
    network = spec.build()
    if "depth" in spec.tasks:
        network.initialise_depth_mean(20.0)
    return LoadedModel(network.eval(), spec, Path("memory"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


@pytest.mark.parametrize("architecture", METHODS)
def test_a_file_of_every_method_predicts(
    tmp_path: Path, architecture: str, image: np.ndarray
) -> None:
    loaded = model(architecture)
    save_model(tmp_path / "m.safetensors", loaded.network, loaded.spec)
    predictor = Predictor(load_model(tmp_path / "m.safetensors"), "cpu", engine="pytorch")
    assert predictor.available_maps >= EPISTEMIC
    p = predictor.predict(image)
    assert p.semantic_epistemic.shape == p.depth_epistemic.shape == (64, 96)
    assert (p.semantic_epistemic >= 0).all()
    assert (p.semantic_epistemic <= p.semantic_entropy + 1e-6).all()
    known = np.isfinite(p.depth)
    assert np.array_equal(known, np.isfinite(p.depth_epistemic))
    assert (p.depth_epistemic[known] <= p.depth_variance[known]).all()
    assert p.semantic_epistemic.max() > 0 and p.depth_epistemic[known].max() > 0


@pytest.mark.parametrize("engine", ["pytorch", "openvino"])
def test_maps_are_those_of_the_reference(engine: str, image: np.ndarray) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    calibration = Calibration(temperature=1.7, depth_variance_scale=2.5)
    loaded = model("deep_ensemble", calibration=calibration)
    p = Predictor(loaded, "cpu", engine=engine).predict(
        image, maps=[*EPISTEMIC, "depth", "depth_variance", "semantic_entropy", "labels"]
    )
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (loaded.spec.normalization_mean, loaded.spec.normalization_std)
    )
    with torch.inference_mode():
        raw = loaded.network((x - mean) / std)
    full = [
        torch.nn.functional.interpolate(r.flatten(0, 1), (64, 96), mode="bilinear")[:, None]
        for r in (raw["semantic"], raw["depth"])
    ]
    semantic = semantic_maps(full[0], calibration.temperature)
    depth = depth_maps(*activate_depth(full[1], dim=2), calibration.depth_variance_scale)
    assert np.allclose(p.semantic_entropy, semantic.entropy[0], atol=1e-4)
    assert np.allclose(p.semantic_epistemic, semantic.mutual_information[0], atol=1e-4)
    assert np.allclose(p.depth, depth.mean[0], rtol=1e-4, equal_nan=True)
    assert np.allclose(p.depth_variance, depth.variance[0], rtol=1e-3, equal_nan=True)
    assert np.allclose(p.depth_epistemic, depth.epistemic_variance[0], rtol=1e-3, atol=1e-5)


def test_what_is_not_asked_for_is_not_there(image: np.ndarray) -> None:
    predictor = Predictor(model("deep_sub_ensemble"), "cpu", engine="pytorch")
    only = predictor.predict(image, maps=["depth_epistemic"])
    everything = predictor.predict(image)
    assert only.depth is None and only.labels is None
    assert np.allclose(only.depth_epistemic, everything.depth_epistemic, equal_nan=True)
    labels = predictor.predict(image, maps=["labels"]).labels
    assert np.array_equal(labels, everything.labels)


def test_epistemic_metres_follow_the_camera(image: np.ndarray) -> None:
    camera = Camera(canonical_focal_length=80, assumed_focal_ratio=1.0)
    predictor = Predictor(model("segdepthformer", camera=camera), "cpu", engine="pytorch")
    short = predictor.predict(image, Intrinsics(80, 80, 48, 32, 96, 64))
    long = predictor.predict(image, Intrinsics(160, 160, 48, 32, 96, 64))
    assert np.allclose(long.depth_epistemic, 4 * short.depth_epistemic, rtol=1e-5, equal_nan=True)


def test_split_parts_sum_to_the_variance(image: np.ndarray) -> None:
    loaded = model("segdepthformer", tasks=("depth",), label_set=None)
    p = Predictor(loaded, "cpu", engine="pytorch").predict(image)
    with torch.no_grad():
        loaded.network.decoders["depth"].predict.weight[2] = 0
        loaded.network.decoders["depth"].predict.bias[2] = 1.0
    q = Predictor(loaded, "cpu", engine="pytorch").predict(image)
    part = math.log1p(math.e)
    assert np.nanmax(np.abs(q.depth_epistemic - part)) < 1e-5
    assert np.allclose(
        q.depth_variance - part, p.depth_variance - p.depth_epistemic, atol=1e-4, equal_nan=True
    )


@pytest.mark.parametrize("architecture", ["deep_sub_ensemble", "deep_ensemble"])
def test_openvino_equals_pytorch(architecture: str, image: np.ndarray) -> None:
    pytest.importorskip("openvino")
    a, b = (
        Predictor(model(architecture), "cpu", engine=engine).predict(image)
        for engine in ("pytorch", "openvino")
    )
    for name in ("semantic_entropy", "semantic_epistemic", "depth", "depth_epistemic"):
        x, y = getattr(a, name), getattr(b, name)
        assert np.nanmax(np.abs(x - y)) <= 2e-3 * np.nanmax(np.abs(x)), name


def without_variance(architecture: str, means: tuple[float, ...]) -> LoadedModel:
    """Depth alone, the same everywhere: `means` of the members, in metres."""
    key = "samples" if architecture == "monte_carlo_dropout" else "members"
    arguments = {"width": 16, "depth_variance": False}
    if architecture != "segdepthformer":
        arguments[key] = len(means)
    spec = ModelSpec(
        architecture=architecture,
        backbone="mit_b0",
        tasks=("depth",),
        arguments=arguments,
        input_size=(64, 96),
        depth_range=(0.1, 1000.0),
    )
    network = spec.build()
    network.initialise_depth_mean(means[0])
    network.initialise_depth_deviation(7.0)  # of which there is none
    heads = [m for name, m in network.named_modules() if name.endswith("depth.predict")]
    assert all(head.out_channels == 1 for head in heads)
    for head, mean in zip(heads, means):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, mean)
    return LoadedModel(network.eval(), spec, Path("memory"))


@pytest.mark.parametrize("engine", ["pytorch", "openvino"])
def test_members_without_a_variance_by_hand(image: np.ndarray, engine: str) -> None:
    pytest.importorskip("openvino" if engine == "openvino" else "torch")
    loaded = without_variance("deep_sub_ensemble", (1.0, 3.0, 8.0))
    p = Predictor(loaded, "cpu", engine=engine).predict(image)
    assert np.allclose(p.depth, 4, rtol=1e-5)
    assert np.allclose(p.depth_variance, 26 / 3, rtol=1e-5)
    assert np.allclose(p.depth_epistemic, 26 / 3, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["segdepthformer", "monte_carlo_dropout"])
def test_what_has_a_variance_of_depth(image: np.ndarray, architecture: str) -> None:
    loaded = without_variance(architecture, (5.0, 5.0))
    predictor = Predictor(loaded, "cpu", engine="pytorch")
    sampled = architecture == "monte_carlo_dropout"
    maps = {"depth", "depth_variance", "depth_epistemic"} if sampled else {"depth"}
    assert predictor.available_maps == maps
    p = predictor.predict(image)
    assert np.allclose(p.depth, 5)
    if sampled:
        assert np.allclose(p.depth_variance, 0, atol=1e-6)
    else:
        members = deep_ensemble([loaded, without_variance("segdepthformer", (9.0,))])
        p = Predictor(members, "cpu", engine="pytorch").predict(image)
        assert np.allclose(p.depth_std, 2, rtol=1e-5)
        Teacher(members, ColourJitter())
        with pytest.raises(ValueError, match="alone it cannot be a teacher; several"):
            Teacher(loaded, ColourJitter())


def test_a_variance_that_is_not_there_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="it needs one"):
        build_network("segdepthformer", classes=3, split_uncertainty=True, depth_variance=False)


def test_dropout_is_not_given_to_a_runtime_that_removes_it() -> None:
    assert Predictor(model("monte_carlo_dropout"), "cpu").engine == "pytorch"
    with pytest.raises(ValueError, match="Monte Carlo Dropout"):
        Predictor(model("monte_carlo_dropout"), "cpu", engine="openvino")


def test_a_single_member_has_no_epistemic_maps(image: np.ndarray) -> None:
    spec = model("deep_ensemble").spec
    spec = spec.model_copy(update={"arguments": {"width": 16, "members": 1}})
    predictor = Predictor(LoadedModel(spec.build().eval(), spec, Path("memory")), "cpu")
    assert not predictor.available_maps & EPISTEMIC
    with pytest.raises(ValueError, match="no depth_epistemic"):
        predictor.predict(image, maps=["depth_epistemic"])
