"""Maps reduced band by band equal those of the general form."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from emu_perception.inference.engines.activation import SemanticActivation
from emu_perception.inference.engines.banded import (
    SemanticBand,
    assemble,
    cut,
)
from emu_perception.inference.model_file import (
    Calibration,
    LoadedModel,
    ModelSpec,
)
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set

CLASSES = 7
ALL = ("classes", "confidence", "entropy", "mutual_information")


def by_bands(general: SemanticActivation, raw: Tensor) -> tuple[Tensor, ...]:
    size = (general.size[0], general.size[1])
    bands = cut(raw.shape[-2], size[0])
    band = SemanticBand(general, bands)

    def run(rows: np.ndarray, *blend: np.ndarray) -> list[np.ndarray]:
        assert rows.shape[2] == bands.raw_rows
        found = band(*map(torch.from_numpy, (np.ascontiguousarray(rows), *blend)))
        assert all(each.shape == (bands.rows, size[1]) for each in found)
        return [each.numpy() for each in found]

    return tuple(map(torch.from_numpy, assemble(raw.numpy(), bands, size, run)))


def check(names: tuple[str, ...], found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert len(found) == len(expected) == len(names)
    for name, a, b in zip(names, found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, name
        if name == "classes":
            assert (a == b).float().mean() >= 0.999
        else:
            assert torch.allclose(a, b, rtol=0, atol=1e-4), name


@settings(max_examples=60)
@example((19, 2), 1, (1, 0), 0.5, {"classes", "confidence"}, False, 569)
@given(
    raw_size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    factor=st.integers(1, 5),
    rest=st.tuples(st.integers(0, 4), st.integers(0, 9)),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    wanted=st.sets(st.sampled_from(ALL), min_size=1),
    members=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_the_general_form(
    raw_size: tuple[int, int],
    factor: int,
    rest: tuple[int, int],
    temperature: float,
    wanted: set[str],
    members: bool,
    seed: int,
) -> None:
    names = tuple(name for name in ALL if name in wanted)
    size = (raw_size[0] * factor + rest[0], raw_size[1] * factor + rest[1])
    # In the range of a trained network's logits and far beyond it.
    scale = 10.0 ** (seed % 3)
    raw = torch.randn(1, CLASSES + 1, *raw_size, generator=torch.Generator().manual_seed(seed))
    raw = (raw * scale)[None] if members else raw * scale
    general = SemanticActivation(names, size, temperature, CLASSES)
    # From scores in double precision: single rounds those of hundreds, and 1e-4 would not hold.
    raw = raw.double()
    found = (each.float() if each.is_floating_point() else each for each in by_bands(general, raw))
    check(names, tuple(found), general(raw))


@pytest.mark.parametrize("size", [(5, 7), (12, 40), (47, 33), (480, 3), (961, 2)])
def test_constant_logits_and_shrinking(size: tuple[int, int]) -> None:
    """Shrunk maps and many bands; equal scores give a confidence of 1/C and an entropy of ln C."""
    raw = torch.zeros(1, CLASSES, 30, 24)
    names = ("classes", "confidence", "entropy")
    _, confidence, entropy = by_bands(SemanticActivation(names, size, 2, CLASSES), raw)
    assert confidence.shape == size
    assert torch.allclose(confidence, torch.tensor(1 / CLASSES))
    assert torch.allclose(entropy, torch.tensor(float(np.log(CLASSES))))


def test_members_and_probabilities_are_left_to_the_general_form() -> None:
    maps = SemanticActivation(("classes", "entropy"), (4, 4), 1, CLASSES)
    scores = SemanticActivation(("classes", "probabilities"), (4, 4), 1, CLASSES)
    assert SemanticBand.serves(maps.wanted, 1)
    assert not SemanticBand.serves(maps.wanted, 2)
    assert not SemanticBand.serves(scores.wanted, 1)


@pytest.fixture(scope="module")
def predictors() -> tuple[Predictor, Predictor]:
    """A calibrated network by PyTorch and by OpenVINO."""
    pytest.importorskip("openvino")
    torch.manual_seed(5)
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone="mit_b0",
        tasks=("semantic",),
        arguments={"width": 16},
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
        depth_range=(0.1, 1000.0),
        calibration=Calibration(temperature=0.1, fitted_on="nothing"),
    )
    made = LoadedModel(spec.build().eval(), spec, Path("memory"))
    reference, banded = (Predictor(made, device="cpu", engine=e) for e in ("pytorch", "openvino"))
    return reference, banded


@pytest.mark.parametrize(
    ("image_size", "output_size"),
    [
        ((64, 96), None),
        ((63, 97), None),
        ((81, 99), None),
        ((64, 96), (32, 48)),
        ((64, 96), (50, 101)),
        ((64, 96), (96, 150)),
    ],
)
def test_openvino_equals_pytorch_at_any_size(
    predictors: tuple[Predictor, Predictor],
    image_size: tuple[int, int],
    output_size: tuple[int, int] | None,
) -> None:
    image = np.random.default_rng(2).integers(0, 256, (*image_size, 3), np.uint8)
    a, b = (predictor.predict(image, output_size=output_size) for predictor in predictors)
    assert a.labels.shape == b.labels.shape == (output_size or image_size)
    assert (a.labels == b.labels).mean() >= 0.999
    for name in ("confidence", "semantic_entropy"):
        assert np.abs(getattr(a, name) - getattr(b, name)).max() <= 1e-3, name
