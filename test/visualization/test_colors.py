"""Colours: every value lands where it belongs, whatever the map's size and content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emu_perception.labels import load_label_set
from emu_perception.visualization.colors import (
    COLORMAPS,
    colorize_labels,
    colorize_scalar,
    colormap_table,
    overlay,
)

CAMVID = load_label_set("camvid")
SIZES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9)
NUMBERS = hnp.arrays(np.float32, SIZES, elements=st.floats(width=32, allow_nan=True))


@given(hnp.arrays(np.uint8, SIZES))
def test_labels_take_the_colours_of_their_classes(labels: np.ndarray) -> None:
    colors = colorize_labels(labels, CAMVID)
    assert colors.dtype == np.uint8
    assert np.array_equal(colors, CAMVID.palette[labels])


@given(NUMBERS, st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.sampled_from(sorted(COLORMAPS)))
def test_scalars_take_the_nearest_colour_and_nan_is_black(
    values: np.ndarray, vmin: float, span: float, colormap: str
) -> None:
    colors = colorize_scalar(values, vmin, vmin + span, colormap)
    assert colors.shape == (*values.shape, 3)
    assert colors.dtype == np.uint8
    assert not colors[np.isnan(values)].any()
    table = colormap_table(colormap)
    assert (colors[values <= vmin] == table[1]).all()
    assert (colors[values >= vmin + span] == table[255]).all()


def test_scalars_run_through_the_whole_colour_map_in_order() -> None:
    ramp = np.linspace(0, 1, 255, dtype=np.float32)[None]
    assert np.array_equal(colorize_scalar(ramp, 0, 1, "gray")[0, :, 0], np.arange(1, 256))
    assert np.array_equal(
        colorize_scalar(ramp, 0, 1, "turbo_r"), colorize_scalar(ramp[:, ::-1], 0, 1, "turbo")
    )


def test_turbo_is_red_at_its_far_end() -> None:
    red, green, blue = colorize_scalar(np.ones((1, 1), np.float32), 0, 1, "turbo")[0, 0]
    assert red > 100 > max(green, blue)


def test_nan_takes_the_colour_asked_for() -> None:
    values = np.array([[np.nan, 0.0]], np.float32)
    assert colorize_scalar(values, 0, 1, invalid=(1, 2, 3))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (np.nan, 1), (0, np.inf)])
def test_an_empty_range_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="vmin < vmax"):
        colorize_scalar(np.zeros((2, 2), np.float32), *bounds)


def test_unknown_colour_maps_are_named() -> None:
    with pytest.raises(ValueError, match=r"'rainbow'.*turbo"):
        colorize_scalar(np.zeros((2, 2), np.float32), 0, 1, "rainbow")


def test_wrong_label_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        colorize_labels(np.zeros((2, 2), np.int64), CAMVID)


@given(hnp.arrays(np.uint8, SIZES), st.floats(0, 1))
def test_overlay_mixes_classes_and_leaves_the_rest(labels: np.ndarray, alpha: float) -> None:
    image = np.full((*labels.shape, 3), 200, np.uint8)
    mixed = overlay(image, labels, CAMVID, alpha)
    expected = np.rint((1 - alpha) * image + alpha * CAMVID.palette[labels].astype(np.float64))
    expected[labels >= len(CAMVID)] = 200
    assert np.abs(mixed - expected).max(initial=0) <= 1


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2), np.uint8), CAMVID)
