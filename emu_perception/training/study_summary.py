"""What a study found: means and deviations over seeds, paired differences, files that show them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from emu_perception.evaluation.relative_gain import FIGURES, relative_gain
from emu_perception.evaluation.result import write_json
from emu_perception.training.config import ConfigError, expand
from emu_perception.training.study import GAIN, RESULT_FILE, Gain, StudyConfig
from emu_perception.training.study_report import draw, markdown


def read_results(config: StudyConfig) -> dict[str, dict[int, dict[str, Any]]]:
    """Figures by row and seed, as far as they are finished."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in config.rows:
        for seed in config.seeds:
            file = config.folder(row, seed) / RESULT_FILE
            if row.shown and file.is_file():
                found.setdefault(row.name, {})[seed] = json.loads(file.read_text(encoding="utf-8"))
    return found


def summarise(config: StudyConfig) -> dict[str, Any]:
    """Means and deviations over seeds, and paired differences.

    Returns:
        `rows`: name -> column -> `mean`, `deviation` (of the seeds, n - 1) and `values` by seed;
        `differences`: a list with `row`, `against` and, by column, `mean`, `low`, `high` (95 %,
        Student's t over the seeds' differences) and `values`; `unfinished`: what is missing.

    Raises:
        ConfigError: no row is finished for any seed, or a gain is asked for of a task that a row
            has no figure of.
    """
    results = read_results(config)
    if not results:
        raise ConfigError(f"{expand(config.output)} holds no finished row of this study")
    rows: dict[str, Any] = {}
    for name, by_seed in results.items():
        rows[name] = {}
        for head, key in config.columns.items():
            found = {seed: look_up(figures, key) for seed, figures in by_seed.items()}
            known = {seed: value for seed, value in found.items() if value is not None}
            if known:
                rows[name][head] = _spread(known)
    for gain in config.gains:
        values = _gains(gain, results)
        if values:
            rows[gain.row][GAIN] = _spread(values)
    differences = [
        {
            "row": pair.row,
            "against": pair.against,
            "columns": _paired(rows[pair.row], rows[pair.against]),
        }
        for pair in config.compare
        if pair.row in rows and pair.against in rows
    ]
    unfinished = [
        f"seed {seed}: {row.name}"
        for seed in config.seeds
        for row in config.rows
        if row.shown and seed not in results.get(row.name, {})
    ]
    return {"rows": rows, "differences": differences, "unfinished": unfinished}


def _gains(gain: Gain, results: Mapping[str, Mapping[int, Any]]) -> dict[int, float]:
    """By seed, as far as the row and all single-task rows are finished."""
    wanted = [gain.row, *gain.against.values()]
    found = {}
    for seed in results.get(gain.row, {}):
        if any(seed not in results.get(name, {}) for name in wanted):
            continue
        mine: dict[str, float] = {}
        reference: dict[str, float] = {}
        for task, name in gain.against.items():
            key = f"{gain.test}.{FIGURES[task][0]}"
            own, its = (look_up(results[each][seed], key) for each in (gain.row, name))
            if own is None or its is None:
                lacking = gain.row if own is None else name
                raise ConfigError(f"gains: the row '{lacking}' has no figure '{key}'")
            mine[task], reference[task] = own, its
        found[seed] = relative_gain(mine, reference)
    return found


def look_up(values: Mapping[str, Any], key: str) -> float | None:
    """A figure by its dotted key; None where it or a part of the way is missing."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _spread(values: Mapping[int, float]) -> dict[str, Any]:
    numbers = list(values.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return {"mean": statistics.fmean(numbers), "deviation": deviation, "values": dict(values)}


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for head in first.keys() & second.keys():
        mine, its = first[head]["values"], second[head]["values"]
        differences = {seed: mine[seed] - its[seed] for seed in mine if seed in its}
        if differences:
            spread = _spread(differences)
            low, high = student_interval(list(differences.values()))
            found[head] = {**spread, "low": low, "high": high}
    return {head: found[head] for head in first if head in found}


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


def finish(config: StudyConfig) -> dict[str, Any]:
    """Write `study.json`, `study.md` and `study.png`; the summary."""
    summary = summarise(config)
    folder = expand(config.output)
    write_json(folder / "study.json", summary)
    (folder / "study.md").write_text(markdown(summary), encoding="utf-8")
    draw(summary, folder / "study.png")
    return summary
