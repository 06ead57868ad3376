"""The drawn parts of a report: diagrams as SVG text, frames as pictures for an `img` element."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from emu_perception.evaluation.frames import Frame, Timeline
from emu_perception.labels import LabelSet
from emu_perception.visualization.colors import colorize_labels
from emu_perception.visualization.drawing import (
    BACKGROUND,
    BAR,
    SMALL_SIZE,
    TITLE_SIZE,
    Scale,
    Tile,
    draw_tile,
)
from emu_perception.visualization.panels import (
    Scales,
    map_tiles,
    scalar_tile,
)

BLUE, ORANGE, GREEN, RED, GREY = "#2563a8", "#c2571a", "#3c7d44", "#a83232", "#8a919c"
STYLE: Any = {
    "svg.fonttype": "none",  # the page's own font, which can be searched and read aloud
    "svg.hashsalt": "emu_perception",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
SIZE = (4.2, 3.3)
"""Inches: as wide as a phone's screen, so that the lettering is never shrunk."""
CURVES = {
    "uncertainty": ("the model's uncertainty", BLUE, "-"),
    "oracle": ("oracle: by true error", GREEN, "--"),
    "random": ("random order", GREY, ":"),
    "predicted_depth": ("by predicted depth", ORANGE, "-."),
    "boundary": ("near class boundaries", RED, "-."),
}
TILE_WIDTH = 500


def semantic_reliability(points: Sequence[dict[str, float]]) -> str:
    """Accuracy against confidence, with how many pixels lie in each bin."""
    with rc_context(STYLE):
        figure = _figure()
        axes = figure.subplots()
        confidence = [p["confidence"] for p in points]
        axes.bar(
            confidence,
            [p["fraction"] for p in points],
            width=0.06,
            color="#cdd9e8",
            label="fraction of pixels",
        )
        axes.plot([0, 1], [0, 1], ":", color=GREY, label="calibrated")
        axes.plot(confidence, [p["accuracy"] for p in points], "o-", color=BLUE, label="accuracy")
        axes.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy, fraction of pixels"
        )
        axes.legend(loc="upper left")
        return _svg(figure, "Reliability diagram of the classes")


def depth_reliability(points: Sequence[dict[str, float]]) -> str:
    """Root mean square error against predicted standard deviation, ten bins of equal mass."""
    with rc_context(STYLE):
        figure = _figure()
        axes = figure.subplots()
        predicted = [p["predicted_std"] for p in points]
        errors = [p["rmse"] for p in points]
        low, high = min(predicted + errors) * 0.8, max(predicted + errors) * 1.25
        axes.plot([low, high], [low, high], ":", color=GREY, label="calibrated")
        axes.plot(predicted, errors, "o-", color=BLUE, label="a tenth of the pixels each")
        if low > 0:
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("")
        axes.set(
            xlim=(low, high),
            ylim=(low, high),
            xlabel="predicted standard deviation / m",
            ylabel="RMSE / m",
        )
        axes.legend(loc="upper left")
        return _svg(figure, "Depth error against predicted deviation")


def sparsification(curves: dict[str, list[float]], ylabel: str) -> str:
    """Error of what remains as the most uncertain pixels are removed."""
    with rc_context(STYLE):
        figure = _figure()
        axes = figure.subplots()
        removed = curves["fraction_removed"]
        for name, (label, color, dashes) in CURVES.items():
            if name in curves:
                axes.plot(removed, curves[name], dashes, color=color, label=label)
        axes.set(
            xlim=(0, 1), xlabel="fraction of pixels removed, most uncertain first", ylabel=ylabel
        )
        axes.set_ylim(bottom=0)
        _legend_below(axes)
        return _svg(figure, f"Sparsification curves, {ylabel}")


def depth_by_distance(rows: Sequence[dict[str, float]]) -> str:
    """RMSE and predicted deviation by predicted distance."""
    with rc_context(STYLE):
        figure = _figure()
        axes = figure.subplots()
        names = [f"{row['from']:g}–{row['to']:g}" for row in rows]
        places = np.arange(len(rows))
        errors = [r["rmse"] for r in rows]
        predicted = [r["predicted_std"] for r in rows]
        axes.bar(places - 0.2, errors, 0.4, color=ORANGE, label="RMSE")
        axes.bar(places + 0.2, predicted, 0.4, color=BLUE, label="predicted deviation")
        axes.set_xticks(places, names, rotation=45 if len(rows) > 5 else 0)
        axes.set(xlabel="predicted distance / m", ylabel="m")
        axes.grid(axis="x", visible=False)
        axes.legend()
        return _svg(figure, "Depth error and predicted deviation by distance")


def class_iou(ious: dict[str, float | None], label_set: LabelSet | None) -> str:
    """Intersection over union of each class, in its colour."""
    found = {name: iou for name, iou in ious.items() if iou is not None}
    order = sorted(found, key=lambda name: found[name])
    with rc_context(STYLE):
        figure = _figure((SIZE[0], 0.9 + 0.24 * len(order)))
        axes = figure.subplots()
        colors = [
            tuple(c / 255 for c in label_set.colors[label_set.index(name)]) if label_set else BLUE
            for name in order
        ]
        values = [found[name] for name in order]
        bars = axes.barh(order, values, color=colors, edgecolor=GREY, linewidth=0.5)
        axes.bar_label(bars, [f"{iou:.2f}" for iou in values], padding=3, fontsize=9)
        axes.set(xlim=(0, 1.1), xlabel="intersection over union")
        axes.grid(axis="y", visible=False)
        return _svg(figure, "Intersection over union by class")


def timeline(times: Timeline, keys: dict[str, str], xlabel: str) -> str:
    """Curves of figures over time, one below the other.

    Args:
        keys: axis labels by figure; those that no frame has are left out.
    """
    curves = {key: times.curve(key) for key in keys}
    there = [key for key, (_, values) in curves.items() if values]
    with rc_context(STYLE):
        figure = _figure((8.8, 0.6 + 1.35 * len(there)))
        for axes, key in zip(
            np.atleast_1d(figure.subplots(len(there), sharex=True)), there, strict=True
        ):
            x, values = curves[key]
            marker = "." if len(x) < 60 else ""
            axes.plot(x, values, marker=marker, color=BLUE, linewidth=1.2)
            axes.set_ylabel(keys[key])
            axes.set_ylim(bottom=0)
            axes.label_outer()
        axes.set_xlabel(xlabel)
        figure.align_ylabels()
        return _svg(figure, "Timeline of " + ", ".join(keys[key] for key in there))


def frame_pictures(
    frame: Frame, label_set: LabelSet | None, scales: Scales
) -> list[tuple[str, str]]:
    """Titles and data addresses of a frame's image, truth, predictions and uncertainties."""
    prediction = frame.prediction
    tiles = map_tiles(frame.image, prediction, label_set, scales)
    if frame.labels is not None and label_set is not None:
        tiles["true_labels"] = Tile("True class", colorize_labels(frame.labels, label_set))
    if frame.depth is not None:
        known = np.isfinite(frame.depth) & (frame.depth > 0)
        truth = np.where(known, frame.depth, np.float32(np.nan)).astype(np.float32)
        scale = Scale(scales.depth, "m", "turbo_r", (0.0, 0.05, 0.2, 0.5, 1.0), root=True)
        tiles["true_depth"] = scalar_tile("True depth", "", truth, scale)
    order = (
        *("image", "true_labels", "labels", "semantic_uncertainty"),
        *("true_depth", "depth", "depth_std"),
    )
    return [(tiles[n].title, _tile_address(tiles[n])) for n in order if n in tiles]


def _tile_address(tile: Tile) -> str:
    height = max(1, round(TILE_WIDTH * tile.picture.shape[0] / tile.picture.shape[1]))
    below = 10 + BAR + 8 + SMALL_SIZE if tile.scale is not None else 0
    canvas = Image.new("RGB", (TILE_WIDTH, TITLE_SIZE + 12 + height + below + 4), BACKGROUND)
    draw_tile(canvas, tile, 0, 0, TILE_WIDTH, height)
    packed = io.BytesIO()
    canvas.save(packed, "webp", quality=80)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")


def _figure(size: tuple[float, float] = SIZE) -> Figure:
    return Figure(size, layout="constrained")


def _legend_below(axes: Axes) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, columnspacing=1.0)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `svg` element; the title is for those who cannot see it."""
    FigureCanvasSVG(figure)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    element = svg[svg.index("<svg") :]
    return element.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
