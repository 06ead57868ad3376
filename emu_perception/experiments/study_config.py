"""The configuration of a study: methods, seeds, folds, and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, model_validator

from emu_perception.experiments.rows import Row
from emu_perception.tasks import TASKS, Task
from emu_perception.training.config import TrainConfig
from emu_perception.training.config_file import explain, merged
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.loss_config import DistillationConfig
from emu_perception.training.run import MEMBER_SEED, MODEL_FILE
from emu_perception.training.settings import Strict, expand

GAIN = "Δ %"
"""Usual head of the column of the relative gain over single-task rows."""
VALIDATION = "validation"
"""Prefix of the keys of figures that a run logged itself."""
FOLD = "$FOLD"
"""Stands for the fold's name in `base`, `tests`, `calibration` and rows."""


class Unit(NamedTuple):
    """Unit in which rows are paired: a seed, or one fold of a seed."""

    seed: int
    fold: str | None = None

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, {self.fold}"


class StudyRow(Row):
    """A method: something trained, or earlier rows, its `models`, taken together."""

    change: dict[str, Any] = Field(default_factory=dict)
    """Changes of the base configuration, group by group."""
    member: int = Field(0, ge=0)
    """Number of the member of an ensemble; it changes the seed."""
    start_from: str | None = None
    """The row whose trained network it starts from."""
    teacher: str | None = None
    """The row that teaches it."""
    calibrated: bool = False
    """Fit temperature and variance scale on `calibration`."""
    once: bool = False
    """Only for the first seed, which then stands for all: a reference that is not compared."""
    shown: bool = True
    """False: a part of other rows."""

    @model_validator(mode="after")
    def _check(self) -> StudyRow:
        trained = self.change or self.start_from or self.teacher or self.member
        if (self.models or self.elevation_table is not None) and trained:
            raise ValueError(
                f"row '{self.name}' has models or an elevation_table: it trains nothing that could "
                "change"
            )
        if self.elevation_table is not None and (self.models or self.calibrated):
            raise ValueError(f"row '{self.name}': an elevation_table has no models to calibrate")
        if self.dropout is not None and len(self.models) != 1:
            raise ValueError(f"row '{self.name}': dropout is sampled of one of models")
        return self

    @property
    def trains(self) -> bool:
        """Whether it is a training run of its own."""
        return not self.models and self.elevation_table is None


class Comparison(Strict):
    """Two rows to compare."""

    row: str
    against: str
    relative: bool = False
    """Their ratio - 1 in percent, in place of the difference."""


class Gain(Strict):
    """A multi-task row whose relative gain Delta over rows of its single tasks is computed."""

    row: str
    against: dict[Task, str] = Field(min_length=1)
    """Task -> the row that was trained for it alone."""
    test: str
    """Name in `tests` of the data for the figures of `tasks.TASKS`."""
    figures: dict[Task, str | list[str]] = Field(default_factory=dict)
    """Other figures of tasks, such as `edges: edges.ods_f` for PASCAL-Context; several count as
    much each, as in Eq. 17 of XTasC-Net."""
    column: str = GAIN
    """Head of the column that it fills."""

    def keys(self, task: Task) -> list[str]:
        """The figures that a task is judged by, as keys of `Evaluation`."""
        chosen = self.figures.get(task, TASKS[task].figure)
        return [chosen] if isinstance(chosen, str) else chosen


class StudyConfig(Strict):
    """Methods, seeds, and what they are scored on."""

    output: str
    title: str = ""
    """The study's question in a line, for tables of results."""
    results: str | None = None
    """A file that gets the figures too, such as `results/NAME.json`, for the tables of documents;
    see `emu results`."""
    seeds: list[int] = Field(min_length=1)
    folds: list[str] = Field(default_factory=list)
    """For leave-one-out: every row is trained once for each, with its name wherever `$FOLD` stands.
    Rows are paired within a fold as they are within a seed."""
    base: dict[str, Any]
    """A training configuration without `output` and `seed`."""
    pretraining: dict[str, Any] | None = None
    """Changes of `base` for training, once for all seeds, the encoder that rows start from."""
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
    """Each fills a column of its row, in percent; `compare` then has it too."""

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        self._check_rows()
        self._check_data()
        self._check_questions()
        unit = self.units()[0]
        for row in self.rows:
            if not row.trains:
                continue
            try:
                StudyConfig.training(self, row, unit)  # of a row alone, which chooses nothing yet
            except ValidationError as error:
                raise ValueError(
                    f"row '{row.name}' cannot be trained:\n{explain(TrainConfig, error)}"
                ) from error
        self.pretraining_run()
        return self

    def _check_rows(self) -> None:
        known: list[str] = []
        for row in self.rows:
            wanted = [*row.models, *(each for each in (row.start_from, row.teacher) if each)]
            for name in wanted:
                if name not in known:
                    raise ValueError(f"row '{row.name}' needs '{name}', which no row above it is")
                if self.row(name).elevation_table is not None:
                    raise ValueError(f"row '{row.name}' needs '{name}', which has no model")
                if self.row(name).once and not row.once:
                    raise ValueError(f"row '{row.name}' needs '{name}', which is there only once")
            for name in known:
                if name == row.name:
                    raise ValueError(f"two rows are named '{name}'")
                if _plain(name) == _plain(row.name):
                    raise ValueError(
                        f"rows '{name}' and '{row.name}' would share the folder "
                        f"'{_plain(name)}': let their names differ by more than punctuation"
                    )
            if row.calibrated and self.calibration is None:
                raise ValueError(f"row '{row.name}' is calibrated: give the data as `calibration`")
            known.append(row.name)

    def _check_questions(self) -> None:
        known = {row.name: row for row in self.rows}
        for pair in self.compare:
            for name in (pair.row, pair.against):
                if name not in known:
                    raise ValueError(f"compare: there is no row '{name}'")
                if known[name].once:
                    raise ValueError(f"compare: '{name}' is there once: nothing is paired with it")
        for gain in self.gains:
            for name in (gain.row, *gain.against.values()):
                if name not in known or not known[name].shown:
                    raise ValueError(f"gains: there is no row '{name}' with figures")
            if gain.test not in self.tests:
                raise ValueError(f"gains: there is no test '{gain.test}'")
        places = [(gain.row, gain.column) for gain in self.gains]
        if len(set(places)) < len(places):
            raise ValueError("gains: two fill the same column of a row; give one another `column`")
        heads = {gain.column for gain in self.gains} | {GAIN}
        for head, key in self.columns.items():
            if head in heads:
                raise ValueError(f"columns: '{head}' is what `gains` give")
            if key.partition(".")[0] not in (*self.tests, VALIDATION):
                raise ValueError(f"columns: '{head}' is '{key}', but there is no such test")

    def _check_data(self) -> None:
        if VALIDATION in self.tests:
            raise ValueError(f"tests: '{VALIDATION}' is what the runs logged; take another name")
        for name, data in self.tests.items():
            if data == self.calibration:
                raise ValueError(
                    f"tests: '{name}' is the calibration's data: figures would flatter"
                )

    def row(self, name: str) -> StudyRow:
        """A row by name."""
        return next(row for row in self.rows if row.name == name)

    def units(self) -> list[Unit]:
        """Units that every row is trained for, in order."""
        folds: list[str | None] = list(self.folds) or [None]
        return [Unit(seed, fold) for seed in self.seeds for fold in folds]

    def has(self, row: StudyRow, unit: Unit) -> bool:
        """Whether a row is trained, or put together, for a unit."""
        return not row.once or unit.seed == self.seeds[0]

    def folder(self, row: StudyRow, unit: Unit) -> Path:
        """Folder of the run and the figures of a row of a unit."""
        parts = [f"seed_{unit.seed}", *([] if unit.fold is None else [_plain(unit.fold)])]
        return expand(self.output).joinpath(*parts, _plain(row.name))

    def files(self, row: StudyRow, unit: Unit) -> list[Path]:
        """The model files of a row: several are a Deep Ensemble."""
        if not row.models:
            return [self.folder(row, unit) / MODEL_FILE]
        return [file for name in row.models for file in self.files(self.row(name), unit)]

    def training(self, row: StudyRow, unit: Unit) -> TrainConfig:
        """The training configuration of a row."""
        values = in_fold(merged(self.base, row.change), unit.fold)
        values["output"] = str(self.folder(row, unit))
        values["seed"] = unit.seed + MEMBER_SEED * row.member
        pretraining = self.pretraining_run()
        if pretraining is not None and row.start_from is None:
            encoder = str(expand(pretraining.output) / MODEL_FILE)
            values["model"] = {"encoder_weights": encoder, **values.get("model", {})}
        if row.start_from is not None:
            (start,) = self.files(self.row(row.start_from), unit)
            values["model"] = {**values.get("model", {}), "start_from": str(start)}
        if row.teacher is not None:
            teacher = [str(file) for file in self.files(self.row(row.teacher), unit)]
            given = values.get("distillation", {})
            values["distillation"] = DistillationConfig(**{**given, "teacher": teacher})
        return TrainConfig.model_validate(values).with_annotation_seed(unit.seed)

    def pretraining_run(self) -> TrainConfig | None:
        """The run whose encoder all rows start from, if there is one."""
        if self.pretraining is None:
            return None
        output = str(expand(self.output) / "pretraining")
        return TrainConfig.model_validate({**merged(self.base, self.pretraining), "output": output})


def in_fold(values: Any, fold: str | None) -> Any:
    """The same with `$FOLD` replaced by the fold's name, however deep."""
    if fold is None:
        return values
    if isinstance(values, str):
        return values.replace(FOLD, fold)
    if isinstance(values, Mapping):
        return {key: in_fold(value, fold) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [in_fold(each, fold) for each in values]
    return values


def data_in_fold(data: DatasetConfig, fold: str | None) -> DatasetConfig:
    """A data set with `$FOLD` replaced by the fold's name."""
    return DatasetConfig.model_validate(in_fold(data.model_dump(), fold))


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
