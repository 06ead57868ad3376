"""The seam: sizes, units, cameras, thresholds and refusals, on small networks."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.images import is_thin
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import Calibration, Camera, ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.networks.segdepthformer import SegDepthFormer


def model(**changes: object) -> LoadedModel:
    torch.manual_seed(3)
    values = {
        "architecture": "segdepthformer",
        "backbone": "mit_b0",
        "tasks": ("semantic", "depth"),
        "arguments": {"width": 16},
        "label_set": load_label_set("camvid"),
        "input_size": (64, 96),
        "depth_range": (0.1, 1000.0),
    } | changes
    spec = ModelSpec(**values)
    network = spec.build()
    assert isinstance(network, SegDepthFormer)
    if "depth" in spec.tasks:
        network.initialise_depth_mean(20.0)
    return LoadedModel(network.eval(), spec, Path("memory"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def no_sky() -> ModelSpec:
    return replace(load_label_set("camvid"), without_depth=())


def test_maps_have_their_contract(image: np.ndarray) -> None:
    p = Predictor(model(), device="cpu", engine="pytorch").predict(image)
    assert p.labels.dtype == np.uint8 and p.labels.max() < 11
    for name in ("confidence", "semantic_entropy", "depth", "depth_variance"):
        value = getattr(p, name)
        assert value.dtype == np.float32 and value.shape == (64, 96), name
    assert p.confidence.min() >= 1 / 11 - 1e-6 and p.confidence.max() <= 1
    assert p.semantic_entropy.max() <= math.log(11) + 1e-5
    assert p.probabilities is None and p.semantic_epistemic is None
    assert np.array_equal(np.isnan(p.depth), np.isnan(p.depth_variance))


def test_probabilities_agree_with_the_other_maps(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    p = predictor.predict(image, maps=["probabilities", "labels", "confidence"])
    assert p.depth is None and p.probabilities.shape == (11, 64, 96)
    assert np.allclose(p.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(p.probabilities.argmax(0), p.labels)
    assert np.allclose(p.probabilities.max(0), p.confidence)


def test_folded_maps_equal_the_unfolded_ones(image: np.ndarray) -> None:
    loaded = model()
    p = Predictor(loaded, device="cpu", engine="pytorch").predict(image)

    class Unfolded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = loaded.network

        def forward(self, x: torch.Tensor) -> object:
            return self.network(x)

    reference = Predictor(
        LoadedModel(Unfolded(), loaded.spec, loaded.path), device="cpu", engine="pytorch"
    ).predict(image)
    for name in ("confidence", "semantic_entropy", "depth", "depth_variance"):
        a, b = getattr(p, name), getattr(reference, name)
        assert np.array_equal(np.isnan(a), np.isnan(b))
        assert np.nanmax(np.abs(a - b)) <= 1e-4 * np.nanmax(np.abs(b)), name


@settings(max_examples=15)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_any_size(height: int, width: int) -> None:
    assume(not is_thin(height, width))
    image = np.full((height, width, 3), 90, np.uint8)
    p = Predictor(model(), device="cpu", engine="pytorch").predict(image)
    assert p.size == (height, width) and p.depth.shape == (height, width)


def test_network_size_keeps_area_and_proportions() -> None:
    predictor = Predictor(model(input_size=(384, 512)), device="cpu", engine="pytorch")
    assert predictor.network_size(480, 640) == (384, 512)
    rows, columns = predictor.network_size(1080, 1920)
    assert rows % 32 == columns % 32 == 0
    assert rows * columns == pytest.approx(384 * 512, rel=0.15)
    assert columns / rows == pytest.approx(1920 / 1080, rel=0.12)


def test_output_size(image: np.ndarray) -> None:
    p = Predictor(model(), device="cpu", engine="pytorch").predict(image, output_size=(32, 48))
    assert p.labels.shape == p.depth.shape == (32, 48)


def test_metres_follow_the_focal_length(image: np.ndarray) -> None:
    camera = Camera(canonical_focal_length=80, assumed_focal_ratio=1.0, assumed_focal_std=0.2)
    predictor = Predictor(model(camera=camera, label_set=no_sky()), device="cpu", engine="pytorch")
    short = predictor.predict(image, Intrinsics(80, 80, 48, 32, 96, 64))
    long = predictor.predict(image, Intrinsics(160, 160, 48, 32, 96, 64))
    assert np.allclose(long.depth, 2 * short.depth, equal_nan=True, rtol=1e-5)
    assert np.allclose(long.depth_variance, 4 * short.depth_variance, equal_nan=True, rtol=1e-5)
    unknown = predictor.predict(image)
    assumed = predictor.predict(image, Intrinsics(96, 96, 48, 32, 96, 64))
    assert np.allclose(unknown.depth, assumed.depth, equal_nan=True, rtol=1e-5)
    widened = assumed.depth_variance + (0.2 * assumed.depth) ** 2
    assert np.allclose(unknown.depth_variance, widened, equal_nan=True, rtol=1e-5)


def test_resizing_is_seen_as_another_focal_length(image: np.ndarray) -> None:
    camera = Camera(canonical_focal_length=80, assumed_focal_ratio=1.0)
    predictor = Predictor(model(camera=camera, label_set=no_sky()), device="cpu", engine="pytorch")
    small = predictor.predict(image, Intrinsics(80, 80, 47.5, 31.5, 96, 64))
    twice = np.repeat(np.repeat(image, 2, 0), 2, 1)
    large = predictor.predict(
        twice, Intrinsics(160, 160, 95.5, 63.5, 192, 128), output_size=(64, 96)
    )
    assert np.nanmedian(large.depth / small.depth) == pytest.approx(1.0, rel=0.05)


def test_without_canonical_focal_length_the_camera_changes_nothing(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    p, q = predictor.predict(image), predictor.predict(image, Intrinsics(33, 33, 48, 32, 96, 64))
    assert np.array_equal(p.depth, q.depth, equal_nan=True)
    assert np.array_equal(p.depth_variance, q.depth_variance, equal_nan=True)


def test_invalid_depth(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    p = predictor.predict(image)
    sky = p.labels == predictor.label_set.index("sky")
    assert np.isnan(p.depth[sky]).all()
    limit = float(np.nanmedian(p.depth_std))
    q = p.with_depth_std_up_to(limit)
    certain = np.isfinite(p.depth) & (p.depth_std <= limit)
    assert 0 < certain.mean() < np.isfinite(p.depth).mean()
    for name in ("depth", "depth_variance"):
        assert (np.isfinite(getattr(q, name)) == certain).all()
        assert np.array_equal(getattr(q, name)[certain], getattr(p, name)[certain])
    assert q.labels is p.labels
    narrow = Predictor(model(depth_range=(0.1, 19.9)), device="cpu", engine="pytorch").predict(
        image
    )
    assert np.isnan(narrow.depth).any() and not (narrow.depth > 19.9).any()


def test_unmasked_depth_is_everywhere_and_within_the_range(image: np.ndarray) -> None:
    predictor = Predictor(model(depth_range=(0.1, 19.9)), device="cpu", engine="pytorch")
    masked = predictor.predict(image)
    predictor.masks_depth = False
    p = predictor.predict(image)
    assert np.isfinite(p.depth).all() and np.isfinite(p.depth_variance).all()
    assert p.depth.min() >= 0.1 and p.depth.max() == np.float32(19.9)
    kept = np.isfinite(masked.depth)
    assert not kept.all() and np.array_equal(p.depth[kept], masked.depth[kept])


def test_sky_is_left_out_even_if_only_depth_is_asked_for(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    everything = predictor.predict(image)
    only = predictor.predict(image, maps=["depth"])
    assert only.labels is None
    assert np.array_equal(only.depth, everything.depth, equal_nan=True)


def test_min_confidence(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    p = predictor.predict(image)
    predictor.min_confidence = float(np.median(p.confidence))
    q = predictor.predict(image)
    doubtful = p.confidence < predictor.min_confidence
    assert doubtful.any() and not doubtful.all()
    assert (q.labels[doubtful] == 255).all() and (q.confidence[doubtful] == 0).all()
    assert np.array_equal(q.labels[~doubtful], p.labels[~doubtful])


def test_calibration_is_applied(image: np.ndarray) -> None:
    plain = Predictor(model(), device="cpu", engine="pytorch").predict(image)
    fitted = Calibration(temperature=3.0, depth_variance_scale=4.0, fitted_on="a test")
    p = Predictor(model(calibration=fitted), device="cpu", engine="pytorch").predict(image)
    assert np.array_equal(p.labels, plain.labels)
    assert p.semantic_entropy.mean() > plain.semantic_entropy.mean()
    assert np.allclose(p.depth_variance, 4 * plain.depth_variance, equal_nan=True)


def test_single_task_models(image: np.ndarray) -> None:
    semantic = Predictor(model(tasks=("semantic",)), device="cpu", engine="pytorch")
    assert semantic.predict(image).depth is None
    assert "depth" not in semantic.available_maps
    depth = Predictor(model(tasks=("depth",), label_set=None), device="cpu", engine="pytorch")
    assert depth.predict(image).labels is None and depth.label_set is None
    with pytest.raises(ValueError, match="no labels; it has depth, depth_variance"):
        depth.predict(image, maps=["labels"])


def test_bfloat16_is_close(image: np.ndarray) -> None:
    loaded = model(label_set=no_sky())
    exact = Predictor(loaded, device="cpu", engine="pytorch").predict(image)
    loaded = model(label_set=no_sky())
    rough = Predictor(loaded, device="cpu", precision="bf16").predict(image)
    assert np.nanmedian(np.abs(rough.depth / exact.depth - 1)) < 0.02


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(H, W, 3\), got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "uint8 RGB"),
        (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        # The network would see 32 rows of 400,000 pixels.
        (np.zeros((1, 100_000, 3), np.uint8), "100000 x 1 pixels, expected proportions"),
        (np.zeros((33, 2, 3), np.uint8), "2 x 33 pixels, expected proportions"),
        ([[1]], "NumPy array"),
    ],
)
def test_bad_images_are_refused(bad: object, message: str) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    with pytest.raises(ValueError, match=message):
        predictor.predict(bad)


def test_other_refusals(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    with pytest.raises(ValueError, match="48 x 32 image, the image is 96 x 64"):
        predictor.predict(image, Intrinsics(80, 80, 24, 16, 48, 32))
    with pytest.raises(ValueError, match="auto, cpu or cuda, got 'tpu'"):
        Predictor(model(), device="tpu")
    with pytest.raises(ValueError, match="got 'fp8'"):
        Predictor(model(), device="cpu", precision="fp8")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            Predictor(model(), device="cuda")
