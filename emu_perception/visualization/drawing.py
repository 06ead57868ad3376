"""Pieces of the pictures for people: tiles, scales, legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emu_perception.labels import LabelSet
from emu_perception.prediction import UNLABELLED
from emu_perception.visualization.colors import colormap_table

BACKGROUND = (19, 22, 28)
TEXT = (236, 239, 244)
FAINT = (150, 158, 172)
HATCH = ((16, 19, 26), (58, 64, 78))
"""Stripes of pixels without a value: no class and no colour map looks like them."""
STRIPES = 40
"""Stripes over the width of a picture."""
MARGIN = 32
GAP = 24
BAR = 12
SPACE = 6
"""Between the numbers of a scale."""
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 21, 17, 15


@dataclass(frozen=True)
class Scale:
    """Range and colour map of a scalar map."""

    vmax: float
    unit: str
    colormap: str
    ticks: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Fractions of vmax."""
    open_end: bool = True
    """Larger values have the colour of the end too."""
    meanings: tuple[str, str] = ("", "")
    """Meanings of 0 and vmax, written behind the numbers."""
    root: bool = False
    """Colours follow the square root, which leaves more of them to what is near."""

    def position(self, share: float) -> float:
        """Position of a fraction of vmax along the scale, 0–1."""
        return share**0.5 if self.root else share


@dataclass(frozen=True)
class Tile:
    """A map in colours with what is written around it."""

    title: str
    picture: np.ndarray
    note: str = ""
    scale: Scale | None = None


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface of all pictures, in pixels."""
    # Pillow carries this font inside, so pictures look the same on every machine.
    return ImageFont.load_default(size)


def paste(
    canvas: Image.Image, picture: np.ndarray, x: int, y: int, width: int, height: int
) -> None:
    """Put a picture into a box of the canvas, with rounded corners."""
    shrinking = picture.shape[1] > width
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_NEAREST
    tile = Image.fromarray(cv2.resize(picture, (width, height), interpolation=interpolation))
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), 6, 255)
    canvas.paste(tile, (x, y), mask)


def draw_tile(canvas: Image.Image, tile: Tile, x: int, y: int, width: int, height: int) -> None:
    """A title, the map below it in `width` x `height`, and its scale below that."""
    draw = ImageDraw.Draw(canvas)
    draw.text((x, y), tile.title, TEXT, font(TITLE_SIZE))
    draw.text((x + width, y + TITLE_SIZE), tile.note, FAINT, font(SMALL_SIZE), anchor="rs")
    y += TITLE_SIZE + 12
    paste(canvas, tile.picture, x, y, width, height)
    if tile.scale is not None:
        draw_scale(draw, tile.scale, x, y + height + 10, width)


def draw_scale(draw: ImageDraw.ImageDraw, scale: Scale, x: int, y: int, width: int) -> None:
    """A bar with the colours of a scale, and its numbers below as far as there is room for them."""
    table = colormap_table(scale.colormap)
    for column in range(width):
        color = tuple(int(v) for v in table[1 + column * 254 // max(width - 1, 1)])
        draw.line((x + column, y, x + column, y + BAR), color)
    taken: list[tuple[float, float]] = []
    for tick in sorted(scale.ticks, key=lambda tick: tick not in (0, 1)):  # the ends come first
        position = x + round(scale.position(tick) * (width - 1))
        text = f"{scale.vmax * tick:.3g}"
        if tick == 1:
            text = f"{'>= ' if scale.open_end else ''}{text} {scale.unit}".rstrip()
        if tick in (0, 1) and scale.meanings[int(tick)]:
            text += f" = {scale.meanings[int(tick)]}"
        anchor = "la" if tick == 0 else "ra" if tick == 1 else "ma"
        place, style = (position, y + BAR + 6), font(SMALL_SIZE)
        left, _, right, _ = draw.textbbox(place, text, style, anchor)
        if any(left < end + SPACE and begin < right + SPACE for begin, end in taken):
            continue
        taken.append((left, right))
        draw.line((position, y + BAR, position, y + BAR + 4), FAINT)
        draw.text(place, text, FAINT, style, anchor)


def hatch(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A copy of a picture `(H, W, 3)` uint8 with diagonal stripes where a mask `(H, W)` is true."""
    height, width = where.shape
    stripe = max(2, width // STRIPES)
    diagonal = np.add.outer(np.arange(height), np.arange(width)) // stripe % 2
    stripes = np.array(HATCH, np.uint8)[diagonal]
    return np.where(where[..., None], stripes, picture)


def draw_legend(
    draw: ImageDraw.ImageDraw,
    shares: Sequence[tuple[int, float]],
    label_set: LabelSet,
    box: tuple[int, int, int, int],
    percent: bool = True,
) -> None:
    """Swatches with names in a box `(x, y, width, height)`; what does not fit is counted."""
    x, y, width, height = box
    step = TEXT_SIZE + 12
    rows = max(1, height // step)
    columns = (
        max(1, width // 200) if not percent else min(-(-len(shares) // rows), max(2, width // 240))
    )
    rows = min(rows, -(-len(shares) // columns))
    shown = len(shares) if len(shares) <= rows * columns else rows * columns - 1
    column_width = width // columns
    for n, (class_id, share) in enumerate(shares[:shown]):
        # Down the columns in a tall box, along the rows in a flat one.
        if percent:
            column, row = divmod(n, rows)
        else:
            row, column = divmod(n, columns)
        left, top = x + column * column_width, y + row * step
        known = class_id < len(label_set)
        color = label_set.colors[class_id] if known else (0, 0, 0)
        draw.rounded_rectangle((left, top, left + 26, top + TEXT_SIZE + 2), 4, color, FAINT)
        name = label_set.names[class_id] if known else "unlabelled"
        if not known and class_id != UNLABELLED:
            name = f"unknown id {class_id}"
        draw.text((left + 38, top + TEXT_SIZE // 2 + 1), name, TEXT, font(TEXT_SIZE), anchor="lm")
        if percent:
            draw.text(
                (left + column_width - GAP, top + TEXT_SIZE // 2 + 1),
                "< 0.1 %" if share < 0.001 else f"{share:.1%}".replace("%", " %"),
                FAINT,
                font(SMALL_SIZE),
                anchor="rm",
            )
    if shown < len(shares):
        left, top = x + (columns - 1) * column_width, y + (rows - 1) * step
        draw.text(
            (left + 38, top + TEXT_SIZE // 2 + 1),
            f"and {len(shares) - shown} more",
            FAINT,
            font(TEXT_SIZE),
            anchor="lm",
        )
