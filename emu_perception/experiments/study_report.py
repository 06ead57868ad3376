"""The tables and the picture of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emu_perception.atomic import replacing
from emu_perception.markdown import markdown_table


def markdown(summary: Mapping[str, Any]) -> str:
    """The tables of `summarise` in Markdown: rows, rows by fold, and paired differences."""
    text = rows_table(summary)
    if summary["differences"]:
        text += "\n" + differences_table(summary)
    if summary["unfinished"]:
        text += f"\nNot finished: {', '.join(summary['unfinished'])}.\n"
    return text


def _heads(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(head for row in summary["rows"].values() for head in row))


def rows_table(summary: Mapping[str, Any]) -> str:
    """Mean and deviation of each row over seeds; with folds, a further table per column."""
    rows, heads = summary["rows"], _heads(summary)
    lines = [
        [name, *(_spread(row.get(head)) for head in heads)] for name, row in rows.items() if row
    ]
    text = markdown_table(["method", *heads], lines)
    folds = [name for name in _units(rows) if "," in name]
    for head in heads if folds else ():
        lines = [
            [name, *(_value(row.get(head), fold) for fold in folds)] for name, row in rows.items()
        ]
        text += f"\n{head}:\n\n" + markdown_table(["method", *folds], lines)
    return text


def differences_table(summary: Mapping[str, Any]) -> str:
    """Paired differences, or ratios, of rows with their intervals; empty where there are none."""
    if not summary["differences"]:
        return ""
    heads = _heads(summary)
    lines = [
        [
            f"{pair['row']} {'÷' if pair['relative'] else '−'} {pair['against']}",
            *(_interval(pair["columns"].get(head), pair["relative"]) for head in heads),
        ]
        for pair in summary["differences"]
    ]
    head = "difference [95 % interval over seeds] how many seeds agree"
    return markdown_table([head, *heads], lines)


def _number(value: float) -> str:
    """Four significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 10000 else f"{value:.4g}"


def _spread(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    if figure["deviation"] is None:
        return _number(figure["mean"])
    return f"{_number(figure['mean'])} ± {figure['deviation']:.2g}"


def _units(rows: Mapping[str, Any]) -> list[str]:
    """Units with figures: seeds, or folds of seeds."""
    return list(
        dict.fromkeys(u for row in rows.values() for f in row.values() for u in f["values"])
    )


def _value(figure: Mapping[str, Any] | None, unit: str) -> str:
    value = None if figure is None else figure["values"].get(unit)
    return "–" if value is None else _number(value)


def _interval(figure: Mapping[str, Any] | None, relative: bool) -> str:
    """Mean, interval, and in how many of the units the difference has the mean's sign."""
    if figure is None:
        return "–"
    unit = " %" if relative else ""
    if figure["low"] is None:
        return f"{figure['mean']:+.3g}{unit}"
    count = len(figure["values"])
    agree = figure["below"] if figure["mean"] < 0 else count - figure["below"]
    low, high = figure["low"], figure["high"]
    text = f"{figure['mean']:+.3g}{unit} [{low:+.3g}, {high:+.3g}]"
    return f"{text} {agree}/{count}" if low < high else text


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """A panel per column: a dot per seed, a bar at the mean of each row."""
    from matplotlib.figure import Figure

    rows = {name: row for name, row in summary["rows"].items() if row}
    heads = list(dict.fromkeys(head for row in rows.values() for head in row))
    across = min(4, len(heads))
    down = -(-len(heads) // across)
    height = 0.9 + 0.24 * len(rows)
    figure = Figure(figsize=(2.2 + 2.6 * across, down * height + 0.3), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    places = {name: -i for i, name in enumerate(rows)}
    for axis, head in zip(axes.flat, heads):
        for name, row in rows.items():
            if head not in row:
                continue
            place, values = places[name], list(row[head]["values"].values())
            axis.scatter(values, [place] * len(values), s=14, color="#4477aa", alpha=0.7, zorder=3)
            mean = row[head]["mean"]
            axis.plot([mean, mean], [place - 0.35, place + 0.35], color="#222222", linewidth=1.6)
        axis.set_title(head, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(axis="both", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_yticks(list(places.values()), list(places), fontsize=8)
    for axis in axes.flat[len(heads) :]:
        axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
