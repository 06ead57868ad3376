"""A study: methods × seeds on one fixed set, as one table with paired differences.

Rows are trained from one base configuration, so that they differ in what they name and in nothing
else. All rows of a seed share its data, its order and its baseline: their differences are paired.
What is finished is skipped; an interrupted run goes on.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from scipy import stats

from emu_perception.evaluation.relative_gain import FIGURES, relative_gain
from emu_perception.evaluation.result import write_json
from emu_perception.methods import load_models, uncalibrated
from emu_perception.model_file import LoadedModel, Task
from emu_perception.predictor import Predictor
from emu_perception.training import assess
from emu_perception.training.config import (
    ConfigError,
    DatasetConfig,
    DistillationConfig,
    Strict,
    TrainConfig,
    expand,
)
from emu_perception.training.data_module import open_dataset
from emu_perception.training.run import MODEL_FILE, train
from emu_perception.training.study_report import draw, markdown

MEMBER_SEED = 7919
"""A prime: the members of one seed's ensemble are no other seed's."""
RESULT_FILE = "result.json"
GAIN = "Δ %"
"""Head of the column of the relative gain over single-task rows."""
Progress = Callable[[str], None]


class StudyRow(Strict):
    """A method: something trained, or earlier rows taken together."""

    name: str = Field(min_length=1)
    change: dict[str, Any] = Field(default_factory=dict)
    """What it changes in the base configuration, group by group."""
    member: int = Field(0, ge=0)
    """Of an ensemble: its seed is another one."""
    start_from: str | None = None
    """The row whose trained network it starts from."""
    teacher: str | None = None
    """The row that teaches it."""
    models: list[str] = Field(default_factory=list)
    """Earlier rows that together are this one: nothing is trained."""
    calibrated: bool = False
    """Fit temperature and variance scale on `calibration`."""
    shown: bool = True
    """False: a part of other rows."""

    @model_validator(mode="after")
    def _check(self) -> StudyRow:
        if self.models and (self.change or self.start_from or self.teacher or self.member):
            raise ValueError(f"row '{self.name}' has models: it trains nothing that could change")
        return self


class Comparison(Strict):
    """Two rows whose difference is asked for."""

    row: str
    against: str


class Gain(Strict):
    """A multi-task row whose relative gain Delta over rows of its single tasks is asked for."""

    row: str
    against: dict[Task, str] = Field(min_length=1)
    """Task -> the row that has learnt it alone."""
    test: str
    """Of `tests`: what all are judged on, by the figures of `relative_gain.FIGURES`."""


class StudyConfig(Strict):
    """Methods, seeds, and what they are scored on."""

    output: str
    seeds: list[int] = Field(min_length=1)
    base: dict[str, Any]
    """A training configuration without `output` and `seed`."""
    pretraining: dict[str, Any] | None = None
    """What it changes in `base` to train, once for all seeds, the encoder that rows start from."""
    tests: dict[str, DatasetConfig] = Field(min_length=1)
    """Data sets by the name that `columns` give them."""
    calibration: DatasetConfig | None = None
    columns: dict[str, str] = Field(min_length=1)
    """Head of a column -> test and dotted key of `Evaluation`, such as `test.semantic.miou`."""
    rows: list[StudyRow] = Field(min_length=1)
    compare: list[Comparison] = Field(default_factory=list)
    gains: list[Gain] = Field(default_factory=list)
    """Each fills the column `GAIN` of its row, in percent; `compare` then has it too."""

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        known: list[str] = []
        for row in self.rows:
            wanted = [*row.models, *(each for each in (row.start_from, row.teacher) if each)]
            for name in wanted:
                if name not in known:
                    raise ValueError(f"row '{row.name}' needs '{name}', which no row above it is")
            if row.name in known:
                raise ValueError(f"two rows are named '{row.name}'")
            if row.calibrated and self.calibration is None:
                raise ValueError(f"row '{row.name}' is calibrated: say on which `calibration`")
            known.append(row.name)
        for pair in self.compare:
            for name in (pair.row, pair.against):
                if name not in known:
                    raise ValueError(f"compare: there is no row '{name}'")
        for gain in self.gains:
            for name in (gain.row, *gain.against.values()):
                if name not in known or not self.row(name).shown:
                    raise ValueError(f"gains: there is no row '{name}' with figures")
            if gain.test not in self.tests:
                raise ValueError(f"gains: there is no test '{gain.test}'")
        rows = [gain.row for gain in self.gains]
        if len(set(rows)) < len(rows):
            raise ValueError("gains: a row has one gain, not several")
        for head, key in self.columns.items():
            if head == GAIN:
                raise ValueError(f"columns: '{GAIN}' is what `gains` give")
            if key.partition(".")[0] not in self.tests:
                raise ValueError(f"columns: '{head}' is '{key}', but there is no such test")
        self.training(self.rows[0], self.seeds[0])
        self.pretraining_run()
        return self

    def row(self, name: str) -> StudyRow:
        """A row by name."""
        return next(row for row in self.rows if row.name == name)

    def folder(self, row: StudyRow, seed: int) -> Path:
        """Where a row of a seed keeps its run and its figures."""
        name = "".join(c if c.isalnum() else "_" for c in row.name)
        return expand(self.output) / f"seed_{seed}" / name

    def files(self, row: StudyRow, seed: int) -> list[Path]:
        """The model files of a row: several are a Deep Ensemble."""
        if not row.models:
            return [self.folder(row, seed) / MODEL_FILE]
        return [file for name in row.models for file in self.files(self.row(name), seed)]

    def training(self, row: StudyRow, seed: int) -> TrainConfig:
        """The training configuration of a row."""
        values = merged(self.base, row.change)
        values["output"] = str(self.folder(row, seed))
        values["seed"] = seed + MEMBER_SEED * row.member
        pretraining = self.pretraining_run()
        if pretraining is not None and row.start_from is None:
            encoder = str(expand(pretraining.output) / MODEL_FILE)
            values["model"] = {"encoder_weights": encoder, **values.get("model", {})}
        if row.start_from is not None:
            (start,) = self.files(self.row(row.start_from), seed)
            values["model"] = {**values.get("model", {}), "start_from": str(start)}
        if row.teacher is not None:
            teacher = [str(file) for file in self.files(self.row(row.teacher), seed)]
            given = values.get("distillation", {})
            values["distillation"] = DistillationConfig(**{**given, "teacher": teacher})
        return TrainConfig.model_validate(values)

    def pretraining_run(self) -> TrainConfig | None:
        """The run whose encoder all rows start from, if there is one."""
        if self.pretraining is None:
            return None
        output = str(expand(self.output) / "pretraining")
        return TrainConfig.model_validate({**merged(self.base, self.pretraining), "output": output})


def pretrain(config: StudyConfig, progress: Progress | None = None) -> None:
    """Train the encoder that the rows start from, unless it is there or none is asked for."""
    run = config.pretraining_run()
    if run is not None:
        if progress is not None:
            progress("pretraining")
        train(run, progress=False)


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `change`; groups are merged, other values replaced."""
    found = dict(base)
    for name, value in change.items():
        before = found.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        found[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return found


def run_seed(
    config: StudyConfig, seed: int, *, device: str = "auto", progress: Progress | None = None
) -> None:
    """Train and score all rows of one seed; what is finished is skipped."""
    report = progress or (lambda text: None)
    pretrain(config, progress)
    for row in config.rows:
        result = config.folder(row, seed) / RESULT_FILE
        if not row.models:
            report(f"seed {seed}: {row.name}: training")
            train(config.training(row, seed), progress=False)
        if row.shown and not result.is_file():
            report(f"seed {seed}: {row.name}: scoring")
            write_json(result, _score(config, row, seed, device))


def _score(config: StudyConfig, row: StudyRow, seed: int, device: str) -> dict[str, Any]:
    model = uncalibrated(load_models(config.files(row, seed)))
    if row.calibrated:
        assert config.calibration is not None
        fitted = assess.calibrate(model, config.calibration, device=device, engine="pytorch").spec
        model = LoadedModel(load_models(config.files(row, seed)).network, fitted, model.path)
    about = {
        "name": row.name,
        "seed": seed,
        "parameters": assess.count_parameters(model),
        "calibration": model.spec.calibration.model_dump(),
    }
    predictor = Predictor(model, device, engine="pytorch")
    figures = {
        name: assess.score(predictor, open_dataset(data), replicates=0).values
        for name, data in config.tests.items()
    }
    predictor.close()
    return {**about, **figures}


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
