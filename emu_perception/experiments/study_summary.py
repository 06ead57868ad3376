"""Results of a study: means and deviations over seeds, paired differences, files."""

from __future__ import annotations

import difflib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from emu_perception import __version__
from emu_perception.atomic import write_text
from emu_perception.evaluation.relative_gain import relative_gain
from emu_perception.evaluation.result import look_up, write_json
from emu_perception.experiments.study import RESULT_FILE
from emu_perception.experiments.study_config import (
    Comparison,
    Gain,
    StudyConfig,
    Unit,
)
from emu_perception.experiments.study_report import draw, markdown
from emu_perception.training.settings import ConfigError, expand

Results = Mapping[str, Mapping[Unit, Mapping[str, Any]]]


def read_results(config: StudyConfig) -> Results:
    """Figures by row and unit, as far as they are finished."""
    found: dict[str, dict[Unit, dict[str, Any]]] = {}
    for row in config.rows:
        for unit in config.units():
            file = config.folder(row, unit) / RESULT_FILE
            if row.shown and config.has(row, unit) and file.is_file():
                found.setdefault(row.name, {})[unit] = json.loads(file.read_text(encoding="utf-8"))
    return found


def summarise(config: StudyConfig) -> dict[str, Any]:
    """Means and deviations over seeds, and paired differences.

    Returns:
        `rows`: name -> column -> `mean`, `deviation` (of seeds and folds, n - 1) and `values` by
        seed and fold; `differences`: a list with `row`, `against`, `relative` and, by column,
        `mean`, `low`, `high` (95 %, Student's t over the units' differences), `below` (how many of
        them are negative) and `values`; `unfinished`: what is missing.

    Raises:
        ConfigError: no row is finished for any seed, there is no figure of a column's name, or a
            gain is requested for a task that a row has no figure of.
    """
    results = read_results(config)
    if not results:
        raise ConfigError(f"{expand(config.output)} holds no finished row of this study")
    rows: dict[str, Any] = {}
    for name, by_unit in results.items():
        rows[name] = {}
        for head, key in config.columns.items():
            found = {unit: look_up(figures, key) for unit, figures in by_unit.items()}
            known = {unit: value for unit, value in found.items() if value is not None}
            if known:
                rows[name][head] = _spread(known)
    _check_columns(config, results)
    for gain in config.gains:
        values = _gains(config, gain, results)
        if values:
            rows[gain.row][gain.column] = _spread(values)
    differences = [
        {
            "row": pair.row,
            "against": pair.against,
            "relative": pair.relative,
            "columns": _paired(pair, rows[pair.row], rows[pair.against]),
        }
        for pair in config.compare
        if pair.row in rows and pair.against in rows
    ]
    unfinished = [
        f"{unit}: {row.name}"
        for unit in config.units()
        for row in config.rows
        if row.shown and config.has(row, unit) and unit not in results.get(row.name, {})
    ]
    return {"rows": rows, "differences": differences, "unfinished": unfinished}


def _about(config: StudyConfig, command: str) -> dict[str, Any]:
    """Description of the study for readers of the figures."""
    return {
        "title": config.title,
        "command": command,
        "version": __version__,
        "seeds": config.seeds,
        "folds": config.folds,
        "tests": {name: data.title for name, data in config.tests.items()},
        "columns": config.columns,
    }


def _check_columns(config: StudyConfig, results: Results) -> None:
    """ConfigError for a column whose figure is known where there are others with it."""
    for head, key in config.columns.items():
        where, _, name = key.rpartition(".")
        places = [look_up(f, where) for by_unit in results.values() for f in by_unit.values()]
        known = [place for place in places if isinstance(place, Mapping) and place]
        if known and not any(name in place for place in known):
            near = difflib.get_close_matches(name, known[0], n=1, cutoff=0.4)
            hint = f"; did you mean '{where}.{near[0]}'?" if near else ""
            raise ConfigError(f"columns: '{head}' is '{key}', and there is no such figure{hint}")


def _gains(config: StudyConfig, gain: Gain, results: Results) -> dict[Unit, float]:
    """By unit, as far as the row and all single-task rows are finished."""

    def figures(name: str, unit: Unit) -> Mapping[str, Any] | None:
        once = config.row(name).once
        return results.get(name, {}).get(unit._replace(seed=config.seeds[0]) if once else unit)

    found = {}
    for unit in results.get(gain.row, {}):
        if any(figures(name, unit) is None for name in gain.against.values()):
            continue
        mine: dict[str, float] = {}
        reference: dict[str, float] = {}
        for task, name in gain.against.items():
            for figure in gain.keys(task):
                key = f"{gain.test}.{figure}"
                own, its = (look_up(figures(each, unit) or {}, key) for each in (gain.row, name))
                if own is None or its is None:
                    lacking = gain.row if own is None else name
                    raise ConfigError(f"gains: the row '{lacking}' has no figure '{key}'")
                mine[figure], reference[figure] = own, its
        found[unit] = relative_gain(mine, reference)
    return found


def _spread(values: Mapping[Unit, float]) -> dict[str, Any]:
    numbers = list(values.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    named = {str(unit): value for unit, value in values.items()}
    return {"mean": statistics.fmean(numbers), "deviation": deviation, "values": named}


def _paired(
    pair: Comparison, first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Any]:
    found = {}
    for head in first:
        mine, its = first[head]["values"], second.get(head, {}).get("values", {})
        both = [unit for unit in mine if unit in its]
        if pair.relative:
            both = [unit for unit in both if its[unit]]
            differences = {unit: 100 * (mine[unit] / its[unit] - 1) for unit in both}
        else:
            differences = {unit: mine[unit] - its[unit] for unit in both}
        if differences:
            numbers = list(differences.values())
            low, high = student_interval(numbers)
            found[head] = {
                "mean": statistics.fmean(numbers),
                "low": low,
                "high": high,
                "below": sum(number < 0 for number in numbers),
                "values": differences,
            }
    return found


def student_interval(
    values: Sequence[float], level: float = 0.95
) -> tuple[float | None, float | None]:
    """Student's t interval of a mean; None with fewer than two values."""
    if len(values) < 2:
        return None, None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    factor = float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    half = factor * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def finish(config: StudyConfig, command: str = "") -> dict[str, Any]:
    """Write `study.json`, `study.md` and `study.png`, and `config.results`; the summary.

    Args:
        config: of the study.
        command: that repeats it, for the reader of the results.
    """
    summary = summarise(config) | {"about": _about(config, command)}
    folder = expand(config.output)
    write_json(folder / "study.json", summary)
    if config.results is not None:
        write_json(expand(config.results), summary)
    write_text(folder / "study.md", markdown(summary))
    draw(summary, folder / "study.png")
    return summary
