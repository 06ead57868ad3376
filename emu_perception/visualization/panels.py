"""Pictures for people: an image and everything predicted for it, with legends and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from emu_perception.labels import LabelSet
from emu_perception.prediction import Prediction
from emu_perception.visualization.colors import colorize_labels, colorize_scalar
from emu_perception.visualization.drawing import (
    BACKGROUND,
    BAR,
    FAINT,
    GAP,
    MARGIN,
    SMALL_SIZE,
    TEXT,
    TEXT_SIZE,
    TITLE_SIZE,
    Scale,
    Tile,
    draw_legend,
    draw_scale,
    draw_tile,
    font,
    hatch,
    paste,
)

OWN_SCALE = "depth colours fit this image: not comparable with other images"
WIDE = 2.2
"""Width over height from which a panel has two columns instead of three."""


@dataclass(frozen=True)
class Scales:
    """Ends of the scales of depth and of its standard deviation, in metres."""

    depth: float
    depth_std: float


def panel(
    image: np.ndarray,
    prediction: Prediction,
    label_set: LabelSet | None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    scales: Scales | None = None,
    tile_width: int = 520,
) -> np.ndarray:
    """One picture of an image, its classes, its depth and the uncertainty of both.

    Maps that the prediction lacks are left out. Pixels without depth are hatched.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        label_set: of the prediction's labels; None where it has none.
        title: a line above everything, such as where the image is from.
        notes: facts for the line below the title, such as the focal length.
        scales: where the scales of depth end; None fits them to this image. Give `common_scales`
            for pictures to be compared with one another.
        tile_width: width in pixels at which each map is drawn.

    Returns:
        `(H', W', 3)` uint8 RGB.
    """
    notes = list(notes)
    if scales is None and prediction.depth is not None:
        notes.append(OWN_SCALE)
    tiles = map_tiles(image, prediction, label_set, scales or common_scales([prediction]))
    groups: list[tuple[Tile | None, Tile | None]] = [(tiles["image"], None)]
    for upper, lower in (("labels", "semantic_uncertainty"), ("depth", "depth_std")):
        if upper in tiles:
            groups.append((tiles[upper], tiles.get(lower)))
    both = "labels" in tiles or "depth_std" in tiles
    wide = image.shape[1] > WIDE * image.shape[0]
    if wide:  # groups are rows: three columns would leave most of a cell empty
        tile_width = tile_width * 3 // 2
    rows, columns = (len(groups), 1 + both) if wide else (1 + both, len(groups))

    tile_height = max(1, round(tile_width * image.shape[0] / image.shape[1]))
    cell_height = TITLE_SIZE + 12 + max(tile_height, 160 if wide else 220)
    cell_height += 10 + BAR + 6 + SMALL_SIZE
    below_title = MARGIN + (TITLE_SIZE + 6 if title else -6)
    top = MARGIN + (TITLE_SIZE + GAP if title else 0) + (SMALL_SIZE + 4 if notes else 0)
    canvas = Image.new(
        "RGB",
        (
            2 * MARGIN + columns * (tile_width + GAP) - GAP,
            top + rows * (cell_height + GAP) - GAP + MARGIN,
        ),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, MARGIN - 6), title, TEXT, font(TITLE_SIZE + 3))
    draw.text((MARGIN, below_title), "; ".join(notes), FAINT, font(SMALL_SIZE))
    for group, pair in enumerate(groups):
        for place, tile in enumerate(pair):
            row, column = (group, place) if wide else (place, group)
            x, y = MARGIN + column * (tile_width + GAP), top + row * (cell_height + GAP)
            if tile is not None:
                draw_tile(canvas, tile, x, y, tile_width, tile_height)
            elif group == 0 and prediction.labels is not None and label_set is not None:
                draw.text((x, y), "Classes in this image", TEXT, font(TITLE_SIZE))
                box = x, y + TITLE_SIZE + 14, tile_width, cell_height - TITLE_SIZE - 14
                draw_legend(draw, _class_shares([prediction.labels]), label_set, box)
    return np.asarray(canvas)


def contact_sheet(
    frames: Sequence[tuple[np.ndarray, Prediction]],
    label_set: LabelSet | None,
    *,
    title: str = "",
    tile_width: int = 320,
) -> np.ndarray:
    """Draw several images as rows with their maps, on common scales.

    Args:
        frames: images `(H, W, 3)` uint8 RGB with their predictions; all with the same maps.

    Returns:
        `(H', W', 3)` uint8 RGB.
    """
    if not frames:
        raise ValueError("a contact sheet needs at least one frame")
    predictions = [prediction for _, prediction in frames]
    scales = common_scales(predictions)
    rows = [map_tiles(i, p, label_set, scales) for i, p in frames]
    names = [name for name in _ORDER if all(name in row for row in rows)]

    heights = [max(1, round(tile_width * i.shape[0] / i.shape[1])) for i, _ in frames]
    gap = 8
    width = 2 * MARGIN + len(names) * (tile_width + gap) - gap
    top = MARGIN + (TITLE_SIZE + GAP if title else 0)
    shares = _class_shares([p.labels for p in predictions if p.labels is not None])
    legend_rows = -(-len(shares) // max(1, (width - 2 * MARGIN) // 200))
    body = TITLE_SIZE + 8 + sum(heights) + gap * len(heights)
    height = top + body + BAR + 6 + SMALL_SIZE + GAP + legend_rows * (TEXT_SIZE + 12) + MARGIN
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((MARGIN, MARGIN - 6), title, TEXT, font(TITLE_SIZE + 3))
    for c, name in enumerate(names):
        x, y = MARGIN + c * (tile_width + gap), top
        draw.text((x, y), rows[0][name].title, TEXT, font(TEXT_SIZE + 1))
        y += TITLE_SIZE + 8
        for row, tile_height in zip(rows, heights, strict=True):
            paste(canvas, row[name].picture, x, y, tile_width, tile_height)
            y += tile_height + gap
        scale = rows[0][name].scale
        if scale is not None:
            draw_scale(draw, scale, x, y, tile_width)
    if shares and label_set is not None:
        y = top + body + BAR + 6 + SMALL_SIZE + GAP
        draw_legend(
            draw, shares, label_set, (MARGIN, y, width - 2 * MARGIN, height - y), percent=False
        )
    return np.asarray(canvas)


def common_scales(predictions: Sequence[Prediction]) -> Scales:
    """Round ends of the scales that suit all of the predictions."""
    return Scales(
        _fitted_max([p.depth for p in predictions], 97),
        _fitted_max([p.depth_std for p in predictions], 98),
    )


ENTROPY_SCALE = Scale(1.0, "", "magma", open_end=False, meanings=("certain", "no idea"))
_ORDER = ("image", "labels", "semantic_uncertainty", "depth", "depth_std")


def map_tiles(
    image: np.ndarray | None,
    prediction: Prediction,
    label_set: LabelSet | None,
    scales: Scales,
) -> dict[str, Tile]:
    """An image and its prediction as tiles; what is missing is left out.

    Returns:
        Tiles by `image`, `labels`, `semantic_uncertainty`, `depth`, `depth_std`.
    """
    tiles = {}
    if image is not None:
        note = f"{image.shape[1]} x {image.shape[0]}"
        distance = prediction.domain_distance
        if distance is not None:
            familiar = "" if distance <= 1 else " (unfamiliar)"
            note = f"{note}, domain distance {distance:.2f}{familiar}"
        tiles["image"] = Tile("Image", image, note)
    if prediction.labels is not None and label_set is not None:
        tiles["labels"] = Tile("Semantic class", colorize_labels(prediction.labels, label_set))
    if prediction.semantic_entropy is not None and label_set is not None:
        values = prediction.semantic_entropy / np.float32(np.log(max(len(label_set), 2)))
        tiles["semantic_uncertainty"] = scalar_tile(
            "Semantic uncertainty", "normalised entropy", values, ENTROPY_SCALE
        )
    if prediction.depth is not None:
        scale = Scale(scales.depth, "m", "turbo_r", (0.0, 0.05, 0.2, 0.5, 1.0), root=True)
        tiles["depth"] = scalar_tile("Depth", "", prediction.depth, scale)
    std = prediction.depth_std
    if std is not None:
        scale = Scale(scales.depth_std, "m", "magma")
        tiles["depth_std"] = scalar_tile("Depth uncertainty", "std. deviation", std, scale)
    return tiles


def scalar_tile(title: str, what: str, values: np.ndarray, scale: Scale) -> Tile:
    """A map of numbers in the colours of a scale, with its mean next to the title."""
    valid = values[np.isfinite(values)]
    notes = [what] if what else []
    notes.append(f"mean {valid.mean():.3g} {scale.unit}".strip() if valid.size else "all invalid")
    if 0 < valid.size < values.size:
        notes.append(f"hatched: no {'depth' if scale.unit else 'value'}")
    if scale.root:
        picture = colorize_scalar(np.sqrt(values), 0, scale.vmax**0.5, scale.colormap)
    else:
        picture = colorize_scalar(values, 0, scale.vmax, scale.colormap)
    return Tile(title, hatch(picture, np.isnan(values)), ", ".join(notes), scale)


def _fitted_max(maps: Sequence[np.ndarray | None], percentile: float) -> float:
    """A round end for a scale from 0 that contains this percentile of the values."""
    # Every seventh value is enough for a scale.
    values = [m[np.isfinite(m)][::7] for m in maps if m is not None]
    values = [v for v in values if v.size]
    if not values:
        return 1.0
    bound = max(float(np.percentile(np.concatenate(values), percentile)), 1e-3)
    decade = 10.0 ** np.floor(np.log10(bound))
    return next(s * decade for s in (1, 2, 3, 4, 5, 6, 8, 10, 20) if s * decade >= bound * 0.999)


def _class_shares(maps: Sequence[np.ndarray]) -> list[tuple[int, float]]:
    """Class ids that occur with their fraction of all pixels, the most frequent first."""
    counts = sum((np.bincount(m.ravel(), minlength=256) for m in maps), np.zeros(256, np.int64))
    order = np.argsort(-counts, kind="stable")
    return [(int(i), float(counts[i] / counts.sum())) for i in order if counts[i]]
