"""Maps by NumPy and OpenCV equal those of the reference equations in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emu_perception.inference import kernels
from emu_perception.inference.engines.activation import activation_maps, activations, finish_maps
from emu_perception.inference.model_spec import Calibration, ModelSpec
from emu_perception.inference.postprocessing import MapSettings, compute_maps
from emu_perception.inference.predictor import map_settings
from emu_perception.inference.resampling import antialiased
from emu_perception.labels import load_label_set


@pytest.fixture(autouse=True, params=[True, False], ids=["compiled", "numpy"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with the compiled loops, and without."""
    if request.param and not kernels.AVAILABLE:
        pytest.skip("no C compiler built the kernels")
    monkeypatch.setattr(kernels, "AVAILABLE", request.param)


SEMANTIC = ("labels", "confidence", "semantic_entropy", "probabilities")
DEPTH = ("depth", "depth_variance")
EPISTEMIC = ("semantic_epistemic", "depth_epistemic")
OTHERS = ("normals", "edges", "human_parts", "saliency")


def spec(temperature: float = 1.0, tasks: tuple[str, ...] = ("semantic", "depth")) -> ModelSpec:
    return ModelSpec(
        architecture="segdepthformer",
        backbone="mit_b0",
        tasks=tasks,
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
        depth_range=(0.5, 30.0),
        calibration=Calibration(temperature=temperature, depth_variance_scale=1.7, fitted_on="x"),
    )


def check(
    raw: dict[str, np.ndarray],
    size: tuple[int, int],
    wanted: tuple[str, ...],
    described: ModelSpec,
    **changes: Any,
) -> dict[str, np.ndarray]:
    """Compare with torch; gives the maps."""
    values = {**vars(map_settings(described)), "focal_ratio": 2.5, "focal_std": 0.2, **changes}
    settings = MapSettings(**values)
    modules = activations(described, activation_maps(wanted, settings), size)
    found = {
        name: value
        for task, module in modules.items()
        for name, value in zip(module.wanted, module(torch.from_numpy(raw[task])), strict=True)
    }
    expected = finish_maps(found, wanted, settings)
    maps = compute_maps(raw, size, frozenset(wanted), settings)
    assert maps.keys() == set(wanted)
    for name, value in expected.items():
        truth, own = value.numpy(), maps[name]
        assert own.shape == truth.shape and own.dtype == truth.dtype, name
        if own.dtype == np.uint8:
            assert (own == truth).mean() >= 0.999, name
            continue
        assert (np.isnan(own) == np.isnan(truth)).mean() >= 0.999, name
        both = ~(np.isnan(own) | np.isnan(truth))
        close = np.isclose(own[both], truth[both], rtol=1e-4, atol=1e-5)
        assert close.mean() >= 0.999, name  # doubtful labels and borders may differ
    return maps


def random_raw(shape: tuple[int, ...], seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, scale, shape).astype(np.float32)


@pytest.mark.parametrize("size", [(64, 96), (131, 77), (16, 24), (16, 50), (7, 9), (300, 24)])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_single_network(size: tuple[int, int], temperature: float) -> None:
    raw = {"semantic": random_raw((1, 11, 16, 24)), "depth": random_raw((1, 2, 16, 24), 1)}
    maps = check(raw, size, SEMANTIC + DEPTH, spec(temperature))
    assert np.isnan(maps["depth"]).any() and np.isfinite(maps["depth"]).any()
    assert np.allclose(maps["probabilities"].sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("wanted", [("labels",), ("depth",), ("depth_variance",), ("confidence",)])
def test_some_maps_alone(wanted: tuple[str, ...]) -> None:
    raw = {"semantic": random_raw((1, 11, 16, 24)), "depth": random_raw((1, 2, 16, 24), 1)}
    check(raw, (40, 60), wanted, spec())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("channels", [1, 2])
def test_ensembles(temperature: float, channels: int) -> None:
    raw = {
        "semantic": random_raw((3, 1, 11, 16, 24)),
        "depth": random_raw((3, 1, channels, 16, 24), 1),
    }
    maps = check(raw, (50, 64), SEMANTIC + DEPTH + EPISTEMIC, spec(temperature))
    assert maps["semantic_epistemic"].max() > 0.1


def test_split_uncertainty() -> None:
    raw = {"semantic": random_raw((1, 12, 16, 24)), "depth": random_raw((1, 3, 16, 24), 1)}
    check(raw, (50, 64), SEMANTIC + DEPTH + EPISTEMIC, spec(0.8))


def test_a_mean_alone() -> None:
    check({"depth": random_raw((1, 1, 16, 24))}, (50, 64), ("depth",), spec(tasks=("depth",)))


def test_settings_of_the_predictor() -> None:
    raw = {"semantic": random_raw((1, 11, 16, 24)), "depth": random_raw((1, 2, 16, 24), 1)}
    maps = check(raw, (64, 96), SEMANTIC[:3] + DEPTH, spec(), min_confidence=0.9)
    doubtful = maps["labels"] == 255
    assert doubtful.any() and not doubtful.all() and (maps["confidence"][doubtful] == 0).all()
    maps = check(raw, (64, 96), DEPTH, spec(), masks_depth=False)
    assert maps["depth"].min() == np.float32(0.5) and maps["depth"].max() <= 30.0
    known = check(raw, (64, 96), DEPTH, spec(), masks_depth=False, focal_std=0.0)
    assert (known["depth_variance"] < maps["depth_variance"]).all()


@pytest.mark.parametrize("members", [(), (3,)])
def test_other_tasks(members: tuple[int, ...]) -> None:
    channels = {"normals": 3, "edges": 2, "human_parts": 7, "saliency": 2}
    raw = {
        task: random_raw((*members, 1, count, 16, 24), seed)
        for seed, (task, count) in enumerate(channels.items())
    }
    maps = check(raw, (300, 60), OTHERS, spec(tasks=OTHERS))  # several bands
    assert np.allclose(np.linalg.norm(maps["normals"], axis=2), 1, atol=1e-4)


def test_small_variances_keep_their_digits() -> None:
    """ln(1 + exp(x)) for very negative x, where 1 + exp(x) rounds to 1."""
    raw = np.stack([np.full((4, 4), 5.0), np.linspace(-13, 5, 16).reshape(4, 4)])[None]
    raw = raw.astype(np.float32)
    settings = MapSettings(masks_depth=False)
    found = compute_maps({"depth": raw}, (4, 4), frozenset({"depth_variance"}), settings)
    truth = F.softplus(torch.from_numpy(raw[0, 1]).double()).clamp_min(1e-6).numpy()
    assert np.allclose(found["depth_variance"], truth, rtol=1e-4)


def test_equal_logits_are_the_first_class() -> None:
    maps = compute_maps(
        {"semantic": np.zeros((1, 5, 4, 6), np.float32)},
        (8, 12),
        frozenset({"labels", "confidence", "semantic_entropy"}),
        MapSettings(classes=5),
    )
    assert (maps["labels"] == 0).all()
    assert np.allclose(maps["confidence"], 0.2)
    assert np.allclose(maps["semantic_entropy"], np.log(5), rtol=1e-6)


@pytest.mark.parametrize("size", [(64, 96), (31, 150), (352, 480), (480, 640), (500, 700), (5, 8)])
def test_images_are_resampled_as_torch_does(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    expected = F.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        size=size, mode="bilinear", antialias=True,
    )  # fmt: skip
    found = antialiased(image, size)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected.numpy()).max() < 0.03  # in 0–255
