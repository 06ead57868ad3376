"""Every output has its unit, range and encoding."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from emu_perception.labels import LabelSet
from emu_perception.messages.topics import (
    IMAGE_OUTPUTS,
    POINT_MAPS,
    Maps,
    Style,
    available_outputs,
    image_outputs,
)
from emu_perception.prediction import Prediction
from emu_perception.visualization.colors import colorize_scalar

LABELS = LabelSet("three", ("road", "car", "sky"), ((128, 0, 0), (0, 128, 0), (0, 0, 255)))
NAN = float("nan")


def prediction() -> Prediction:
    """2 x 3: a certain pixel, a uniform one, an unlabelled one; one without depth."""
    shape = (2, 3)
    return Prediction(
        labels=np.array([[0, 1, 255], [2, 2, 0]], np.uint8),
        confidence=np.array([[1, 1 / 3, 0], [0.5, 0.999, 0.9]], np.float32),
        semantic_entropy=np.array([[0, math.log(3), 0.5], [0.1, 0.2, 0.3]], np.float32),
        depth=np.array([[5, 80, 0.1], [NAN, 20, 40]], np.float32),
        depth_variance=np.array([[4, 100, 0], [NAN, 0.25, 9]], np.float32),
        semantic_epistemic=np.full(shape, math.log(3) / 2, np.float32),
        depth_epistemic=np.full(shape, 2.25, np.float32),
    )


IMAGE = np.full((2, 3, 3), 90, np.uint8)


def render(topic: str, style: Style | None = None) -> np.ndarray:
    return image_outputs()[topic].render(Maps(prediction(), IMAGE, LABELS, style or Style()))


@pytest.mark.parametrize("topic", IMAGE_OUTPUTS)
def test_pixels_are_what_the_encoding_says(topic: str) -> None:
    encoding, pixels = IMAGE_OUTPUTS[topic].encoding, render(topic)
    expected = {
        "mono8": (np.uint8, (2, 3)),
        "32FC1": (np.float32, (2, 3)),
        "rgb8": (np.uint8, (2, 3, 3)),
    }[encoding]
    assert (pixels.dtype, pixels.shape) == expected


@pytest.mark.parametrize("topic", IMAGE_OUTPUTS)
def test_each_output_needs_what_it_says_and_no_more(topic: str) -> None:
    full, needs = prediction(), IMAGE_OUTPUTS[topic].needs
    assert needs <= {f.name for f in fields(Prediction)}
    values = {name: getattr(full, name) for name in needs}
    output = IMAGE_OUTPUTS[topic]
    output.render(Maps(Prediction(**values), IMAGE, LABELS, Style()))
    for missing in needs:
        less = Prediction(**(values | {missing: None}))
        with pytest.raises(ValueError, match=r"not requested from the predictor|empty prediction"):
            output.render(Maps(less, IMAGE, LABELS, Style()))


def test_labels_keep_255() -> None:
    assert render("semantic/labels").tolist() == [[0, 1, 255], [2, 2, 0]]


def test_confidence_is_rounded_to_0_to_255() -> None:
    assert render("semantic/confidence").tolist() == [[255, 85, 0], [128, 255, 230]]


def test_semantic_uncertainties_are_shares_of_ln_c() -> None:
    uncertainty = render("semantic/uncertainty")
    assert uncertainty[0, :2] == pytest.approx([0, 1])
    assert uncertainty[0, 2] == pytest.approx(0.5 / math.log(3))
    assert render("semantic/epistemic_uncertainty") == pytest.approx(np.full((2, 3), 0.5))


@pytest.mark.parametrize("classes", [1, 2, 255])
def test_the_range_is_0_to_1_for_any_number_of_classes(classes: int) -> None:
    label_set = LabelSet("n", tuple(map(str, range(classes))), ((0, 0, 0),) * classes)
    entropy = np.full((1, 1), math.log(classes), np.float32)
    maps = Maps(Prediction(semantic_entropy=entropy), IMAGE, label_set, Style())
    assert maps.semantic_uncertainty == pytest.approx(0 if classes == 1 else 1)


def test_depth_is_metres_with_nan_and_its_uncertainty_a_standard_deviation() -> None:
    assert np.array_equal(render("depth/image"), prediction().depth, equal_nan=True)
    expected = np.array([[2, 10, 0], [NAN, 0.5, 3]], np.float32)
    assert np.array_equal(render("depth/uncertainty"), expected, equal_nan=True)
    assert (render("depth/epistemic_uncertainty") == 1.5).all()


def test_pictures() -> None:
    assert render("semantic/color").tolist() == [
        [[128, 0, 0], [0, 128, 0], [0, 0, 0]],
        [[0, 0, 255], [0, 0, 255], [128, 0, 0]],
    ]
    blend = render("overlay", Style(overlay_alpha=0.25))
    assert np.abs(blend[0, 0].astype(int) - (99.5, 67.5, 67.5)).max() <= 0.5
    assert blend[0, 2].tolist() == [90, 90, 90]  # unlabelled: the image itself
    for topic in ("depth/color", "depth/uncertainty_color"):
        assert render(topic)[1, 0].tolist() == [0, 0, 0]  # no depth
        assert render(topic)[0, 0].any()


@pytest.mark.parametrize(
    ("topic", "style", "source", "vmax", "colormap"),
    [
        ("depth/color", Style(depth_max=30, depth_colormap="gray"), "depth/image", 30, "gray"),
        (
            "depth/uncertainty_color",
            Style(depth_uncertainty_max=4, uncertainty_colormap="viridis"),
            "depth/uncertainty",
            4,
            "viridis",
        ),
        (
            "semantic/uncertainty_color",
            Style(semantic_uncertainty_max=0.5, uncertainty_colormap="plasma"),
            "semantic/uncertainty",
            0.5,
            "plasma",
        ),
    ],
)
def test_style(topic: str, style: Style, source: str, vmax: float, colormap: str) -> None:
    assert np.array_equal(
        render(topic, style), colorize_scalar(render(source), 0.0, vmax, colormap)
    )
    assert not np.array_equal(render(topic, style), render(topic))


def test_the_image_is_brought_to_the_size_of_the_maps() -> None:
    large = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    maps = Maps(prediction(), large, LABELS, Style())
    means = large.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    assert np.abs(maps.image - means).max() <= 1
    assert Maps(prediction(), IMAGE, LABELS, Style()).image is IMAGE


def test_maps_are_worked_out_once() -> None:
    maps = Maps(prediction(), IMAGE, LABELS, Style())
    assert maps.confidence is maps.confidence
    assert maps.depth_std is maps.depth_std


def test_available_outputs() -> None:
    assert set(available_outputs({"depth", "depth_variance"})) == {
        "depth/image",
        "depth/uncertainty",
        "depth/color",
        "depth/uncertainty_color",
    }
    assert not available_outputs(())
    everything = {f.name for f in fields(Prediction)}
    assert available_outputs(everything).keys() == image_outputs().keys()
    assert everything >= POINT_MAPS


def test_colours_of_classes_need_a_label_set() -> None:
    maps = Maps(prediction(), IMAGE, None, Style())
    with pytest.raises(ValueError, match="no classes"):
        IMAGE_OUTPUTS["semantic/color"].render(maps)
    assert IMAGE_OUTPUTS["depth/image"].render(maps).shape == (2, 3)
