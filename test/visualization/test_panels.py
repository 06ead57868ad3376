"""Panels: they hold what the prediction holds, at any size."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from emu_perception.labels import LabelSet, load_label_set
from emu_perception.prediction import Prediction
from emu_perception.visualization.colors import colormap_table
from emu_perception.visualization.drawing import HATCH, draw_scale
from emu_perception.visualization.panels import (
    ENTROPY_SCALE,
    Scales,
    common_scales,
    contact_sheet,
    map_tiles,
    panel,
)

CAMVID = load_label_set("camvid")


def make_prediction(height: int, width: int, seed: int = 0) -> Prediction:
    random = np.random.default_rng(seed)
    depth = random.uniform(1, 50, (height, width)).astype(np.float32)
    depth[random.random((height, width)) < 0.2] = np.nan
    return Prediction(
        labels=random.integers(0, len(CAMVID), (height, width)).astype(np.uint8),
        semantic_entropy=random.uniform(0, 2.3, (height, width)).astype(np.float32),
        depth=depth,
        depth_variance=depth**2 * 0.01,
    )


def contains_color(picture: np.ndarray, color: tuple[int, int, int] | np.ndarray) -> bool:
    return bool((picture == np.asarray(color, np.uint8)).all(axis=-1).any())


@given(st.integers(1, 70), st.integers(8, 90))
@settings(max_examples=8)
def test_panels_of_any_size_hold_every_map(height: int, width: int) -> None:
    image = np.full((height, width, 3), 77, np.uint8)
    picture = panel(image, make_prediction(height, width), CAMVID, tile_width=200)
    assert picture.dtype == np.uint8
    assert picture.shape[1] > 3 * 200
    assert contains_color(picture, (77, 77, 77))


def test_a_panel_shows_what_the_maps_say() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    labels = np.full((60, 80), CAMVID.index("road"), np.uint8)
    labels[:30] = CAMVID.index("sky")
    depth = np.full((60, 80), 10, np.float32)
    depth[:30] = np.nan
    prediction = Prediction(
        labels=labels,
        semantic_entropy=np.full((60, 80), math.log(len(CAMVID)), np.float32),
        depth=depth,
        depth_variance=np.ones((60, 80), np.float32),
    )
    picture = panel(image, prediction, CAMVID, scales=Scales(10, 2), tile_width=320)
    area = 320 * 240
    share = {
        "road": (picture == CAMVID.colors[CAMVID.index("road")]).all(axis=-1).sum() / area,
        "no depth": sum((picture == tone).all(axis=-1).sum() for tone in HATCH) / area,
        "far": (picture == colormap_table("turbo_r")[255]).all(axis=-1).sum() / area,
        "uncertain": (picture == colormap_table("magma")[255]).all(axis=-1).sum() / area,
    }
    # The legend and the colour bars hold a little of each colour, too.
    assert share == pytest.approx(
        {"road": 0.5, "no depth": 0.5, "far": 0.5, "uncertain": 1.0}, abs=0.03
    )
    assert not contains_color(picture, CAMVID.colors[CAMVID.index("car")])


def test_a_panel_notes_the_distance_from_the_training_domain() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    notes = []
    for distance in (None, 0.8, 1.7):
        prediction = replace(make_prediction(60, 80), domain_distance=distance)
        notes.append(map_tiles(image, prediction, CAMVID, Scales(80, 10))["image"].note)
    assert notes == [
        "80 x 60",
        "80 x 60, domain distance 0.80",
        "80 x 60, domain distance 1.70 (unfamiliar)",
    ]


def test_a_panel_of_one_task_leaves_the_other_out() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    both = make_prediction(40, 60)
    full = panel(image, both, CAMVID)
    depth_only = Prediction(depth=both.depth, depth_variance=both.depth_variance)
    assert panel(image, depth_only, None).shape[1] < full.shape[1]
    labels_only = Prediction(labels=both.labels)
    assert panel(image, labels_only, CAMVID).shape[1] < full.shape[1]


def test_a_legend_with_more_classes_than_room_says_how_many_more() -> None:
    many = LabelSet(
        "many", tuple(f"class {i}" for i in range(200)), tuple((i, 100, 50) for i in range(200))
    )
    labels = np.arange(200, dtype=np.uint8).repeat(4).reshape(20, 40)
    picture = panel(np.zeros((20, 40, 3), np.uint8), Prediction(labels=labels), many)
    assert contains_color(picture, (0, 100, 50))


def test_contact_sheets_share_their_scales() -> None:
    predictions = [make_prediction(30, 40, seed) for seed in range(3)]
    images = [np.full((30, 40, 3), 10 * i, np.uint8) for i in range(3)]
    sheet = contact_sheet(list(zip(images, predictions, strict=True)), CAMVID, title="three")
    taller = contact_sheet([(images[0], predictions[0])], CAMVID, title="one")
    assert sheet.shape[1] == taller.shape[1]
    assert sheet.shape[0] > taller.shape[0]
    assert common_scales(predictions).depth == 50


def test_a_map_without_a_valid_pixel_can_be_drawn() -> None:
    nothing = np.full((10, 10), np.nan, np.float32)
    prediction = Prediction(depth=nothing, depth_variance=nothing)
    assert contains_color(panel(np.zeros((10, 10, 3), np.uint8), prediction, None), HATCH[0])


def test_an_empty_contact_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], CAMVID)


def test_pixels_without_depth_look_like_no_class() -> None:
    depth = np.full((40, 60), 10, np.float32)
    depth[:20] = np.nan
    tile = map_tiles(None, Prediction(depth=depth), None, Scales(10, 2))["depth"]
    assert tile.note == "mean 10 m, hatched: no depth"
    tones = {tuple(int(v) for v in color) for color in tile.picture[:20].reshape(-1, 3)}
    assert tones == set(HATCH)
    for name in ("camvid", "cityscapes", "nyuv2_40"):
        assert not tones & set(load_label_set(name).colors)
    assert len(np.unique(tile.picture[20:].reshape(-1, 3), axis=0)) == 1


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is written into pictures."""
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: object, text: str, *rest: object, **named: Any) -> None:
        written.append(text)
        draw(self, xy, text, *rest, **named)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written


def test_scales_tell_what_their_ends_mean(texts: list[str]) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    panel(image, make_prediction(60, 80), CAMVID, scales=Scales(80, 10), notes=("a note",))
    assert {"0 = certain", "1 = no idea", ">= 80 m", ">= 10 m", "a note"} <= set(texts)


def test_a_panel_with_a_scale_of_its_own_tells_so(texts: list[str]) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    own = "depth colours fit this image: not comparable with other images"
    panel(image, make_prediction(60, 80), CAMVID, notes=("focal length 9 px",))
    assert f"focal length 9 px; {own}" in texts
    texts.clear()
    panel(image, make_prediction(60, 80), CAMVID, scales=Scales(80, 10))
    assert not any(own in text for text in texts)


@pytest.mark.parametrize("width", [120, 300, 900])
def test_numbers_of_a_scale_do_not_touch(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[float, float, str]] = []
    draw = ImageDraw.Draw(Image.new("RGB", (width, 60)))
    write = draw.text

    def watched(xy: Any, text: str, fill: Any, style: Any, anchor: str) -> None:
        left, _, right, _ = draw.textbbox(xy, text, style, anchor)
        places.append((left, right, text))
        write(xy, text, fill, style, anchor)

    monkeypatch.setattr(draw, "text", watched)
    draw_scale(draw, ENTROPY_SCALE, 0, 0, width)
    places.sort()
    assert all(right < left for (_, right, _), (left, _, _) in pairwise(places))
    texts = [text for *_, text in places]
    assert "0 = certain" in texts
    assert width < 300 or {"1 = no idea", "0.5"} <= {*texts}
