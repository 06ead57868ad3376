"""The distance from a training domain, by definition, and as every engine gives it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emu_perception.inference.batch import Request, predict_each
from emu_perception.inference.domain import DomainDistance, DomainStatistics, fit_domain
from emu_perception.inference.engines.activation import Normalization
from emu_perception.inference.methods import deep_ensemble
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.predictor import Predictor
from emu_perception.networks.ensembles import BatchedEnsemble

WIDTH = 48


def made(count: int, seed: int, step: float = 0.0) -> np.ndarray:
    """Features of different scales; `step` of their deviations away from zero."""
    scales = np.geomspace(0.01, 10, WIDTH)
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)) + step
    return (7.0 + scales * values).astype(np.float32)


def test_it_is_the_length_of_the_standardised_features() -> None:
    training, held_out, seen = made(300, 1), made(40, 2), made(5, 3, step=1.0)
    statistics = fit_domain(training, held_out, fitted_on="streets")
    lengths = [
        np.sqrt((((x - training.mean(0)) / training.std(0)) ** 2).sum(1)) for x in (held_out, seen)
    ]
    assert statistics.threshold == pytest.approx(np.percentile(lengths[0], 99), rel=1e-4)
    distance = DomainDistance(statistics)
    np.testing.assert_allclose(distance(seen), lengths[1] / statistics.threshold, rtol=1e-4)
    assert distance(seen[0]) == pytest.approx(distance(seen)[0])
    assert (distance(made(200, 4, step=2.0)) > 1).all()
    assert (distance(made(200, 5)) > 1).mean() < 0.1
    assert statistics.fitted_on == "streets"
    assert DomainStatistics.model_validate_json(statistics.model_dump_json()) == statistics
    assert len(statistics.model_dump_json()) < 1000


def test_a_feature_that_never_varied_does_not_decide_alone() -> None:
    training, held_out = made(50, 1), made(50, 2)
    training[:, 3], held_out[:, 3] = 0.0, 0.0
    distance = DomainDistance(fit_domain(training, held_out))
    seen = made(1, 3)[0]
    seen[3] = 1e-6
    assert distance(seen) < 2


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 20 training images and a held-out one, got 10"):
        fit_domain(made(10, 1), made(5, 2))
    with pytest.raises(ValueError, match="got 30 and 0"):
        fit_domain(made(30, 1), made(0, 2))
    with pytest.raises(ValueError, match=f"are for {WIDTH} features, the network has 12"):
        DomainDistance(fit_domain(made(30, 1), made(5, 2)))(np.zeros(12, np.float32))


def text(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LoadedModel]) -> LoadedModel:
    """With statistics by which the distance is the length of the features: no mean, deviation 1."""
    plain = make_model(backbone="resnet10t", arguments={"width": 8})
    width = plain.network.encoder.feature_info.channels()[-1]  # type: ignore[union-attr, operator]
    domain = DomainStatistics(
        mean=text(np.zeros(width)), deviation=text(np.ones(width)), threshold=2.0
    )
    return plain.described(plain.spec.model_copy(update={"domain": domain}))


@pytest.fixture(scope="module")
def deployed(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    from emu_perception.inference.export import export

    path = tmp_path_factory.mktemp("deployed") / "model.onnx"
    export(model, path)
    return path


@pytest.mark.parametrize("engine", ["pytorch", "openvino"])
def test_engines_give_it_with_the_maps(model: LoadedModel, engine: str) -> None:
    pytest.importorskip("openvino") if engine == "openvino" else None
    predictor = Predictor(model, "cpu", "fp32", engine)
    images = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(2)]
    found = [predictor.predict(image) for image in images]
    for image, prediction in zip(images, found, strict=True):
        features: Any = predictor.features(image)
        assert features.shape == (512,)
        assert isinstance(prediction.domain_distance, float) and prediction.labels is not None
        assert prediction.domain_distance == pytest.approx(np.linalg.norm(features) / 2, rel=1e-4)
    assert found[0].domain_distance != found[1].domain_distance
    alone = predictor.predict(images[0], maps={"domain_distance"})
    assert alone.depth is None and alone.domain_distance == pytest.approx(found[0].domain_distance)
    assert predictor.predict(images[0], maps={"depth"}).domain_distance is None
    answers = predict_each(predictor, images, lambda i: Request(i, None, {"domain_distance"}))
    distances = [answer.prediction.domain_distance for answer in answers]
    assert distances == pytest.approx([each.domain_distance for each in found])
    reference = Predictor(model, "cpu", "fp32", "pytorch").predict(images[1])
    assert found[1].domain_distance == pytest.approx(reference.domain_distance, rel=1e-3)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_deployment_files_give_it(model: LoadedModel, deployed: Path, engine: str) -> None:
    pytest.importorskip(engine)
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    expected = Predictor(model, "cpu", "fp32", "pytorch").predict(image).domain_distance
    found = Predictor.from_pretrained(deployed, "cpu", "fp32", engine).predict(image)
    assert found.depth is not None
    assert found.domain_distance == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("engine", ["pytorch", "openvino", "onnxruntime"])
def test_a_model_that_knows_its_domain_warms_up(
    model: LoadedModel, deployed: Path, engine: str
) -> None:
    """The node could configure no such model."""
    if engine == "pytorch":
        Predictor(model, "cpu", "fp32", engine).warm_up(48, 64)
    else:
        pytest.importorskip(engine)
        Predictor.from_pretrained(deployed, engine=engine).warm_up(48, 64)


def test_an_ensemble_gives_its_first_members_features(model: LoadedModel) -> None:
    ensemble = deep_ensemble([model, model])
    random = torch.Generator().manual_seed(1)
    for parameter in ensemble.network.members[1].parameters():  # type: ignore[union-attr, index]
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    expected = Predictor(model, "cpu", "fp32", "pytorch").features(image)
    predictor = Predictor(ensemble, "cpu", "fp32", "pytorch")
    np.testing.assert_allclose(predictor.features(image), expected, rtol=1e-4, atol=1e-5)
    batched = BatchedEnsemble(ensemble.network.fold())  # type: ignore[operator]
    seen: list[Any] = []
    batched.first.register_forward_hook(lambda module, given, found: seen.append(found[-1]))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        batched(Normalization(model.spec)(pixels))
    np.testing.assert_allclose(seen[0].mean((0, 2, 3)), expected, rtol=1e-3, atol=1e-4)


def test_no_hook_stays_on_the_network(model: LoadedModel) -> None:
    predictor = Predictor(model, "cpu", "fp32", "pytorch")
    predictor.predict(np.zeros((64, 64, 3), np.uint8))
    assert not any(module._forward_hooks for module in model.network.modules())


def test_a_model_without_statistics_has_none(make_model: Callable[..., LoadedModel]) -> None:
    predictor = Predictor(make_model(), "cpu", "fp32", "pytorch")
    assert "domain_distance" not in predictor.available_maps
    assert predictor.predict(np.zeros((64, 64, 3), np.uint8)).domain_distance is None
