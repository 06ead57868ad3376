"""A study: methods × seeds on one fixed set, as one table with paired differences.

Rows are trained from one base configuration, so that they differ in what they name and in nothing
else. All rows of a seed share its data, its order and its baseline: their differences are paired.
What is finished is skipped; an interrupted run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from emu_perception.evaluation.result import write_json
from emu_perception.methods import load_models, uncalibrated
from emu_perception.model_file import LoadedModel, Task
from emu_perception.predictor import Predictor
from emu_perception.training import assess
from emu_perception.training.config import (
    DatasetConfig,
    DistillationConfig,
    Strict,
    TrainConfig,
    expand,
)
from emu_perception.training.data_module import open_dataset
from emu_perception.training.run import MODEL_FILE, train

MEMBER_SEED = 7919
"""A prime: the members of one seed's ensemble are no other seed's."""
RESULT_FILE = "result.json"
GAIN = "Δ %"
"""Head of the column of the relative gain over single-task rows."""
VALIDATION = "validation"
"""What the keys of figures begin with that a run logged itself."""
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
    """Head of a column -> test and dotted key of `Evaluation`, such as `test.semantic.miou`; or
    `validation.` and a figure that the run logged on `base.data.validation`, such as
    `validation.inconsistency_depth`."""
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
        if VALIDATION in self.tests:
            raise ValueError(f"tests: '{VALIDATION}' is what the runs logged; take another name")
        for head, key in self.columns.items():
            if head == GAIN:
                raise ValueError(f"columns: '{GAIN}' is what `gains` give")
            if key.partition(".")[0] not in (*self.tests, VALIDATION):
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
        return TrainConfig.model_validate(values).with_annotation_seed(seed)

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
    if not row.models:
        validation = config.training(row, seed).data.validation
        if validation is not None:
            figures[VALIDATION] = model.spec.metrics.get(validation.title, {})
    return {**about, **figures}
