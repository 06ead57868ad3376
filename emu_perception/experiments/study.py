"""A study: methods × seeds on one fixed set, as one table with paired differences.

Rows are trained from one base configuration, so that they differ in what they name and in nothing
else. All rows of a seed share its data, its order and its baseline: their differences are paired.
What is finished is skipped; an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emu_perception.data import Dataset, derive
from emu_perception.evaluation.result import write_json
from emu_perception.experiments import assess
from emu_perception.experiments.rows import RowScorer, open_row
from emu_perception.experiments.study_config import (
    VALIDATION,
    StudyConfig,
    StudyRow,
    Unit,
    data_in_fold,
)
from emu_perception.training.data_module import open_dataset
from emu_perception.training.run import train

RESULT_FILE = "result.json"
Progress = Callable[[str], None]


def pretrain(config: StudyConfig, progress: Progress | None = None) -> None:
    """Train the encoder that the rows start from, unless it exists or none is configured."""
    run = config.pretraining_run()
    if run is not None:
        if progress is not None:
            progress("pretraining")
        train(run, progress=False)


def run_unit(
    config: StudyConfig, unit: Unit, *, device: str = "auto", progress: Progress | None = None
) -> None:
    """Train and score all rows of a seed, or of a fold of it; what is finished is skipped."""
    report = progress or (lambda text: None)
    pretrain(config, progress)
    for row in config.rows:
        if not config.has(row, unit):
            continue
        if row.trains:
            report(f"{unit}: {row.name}: training")
            train(config.training(row, unit), progress=False)
        if not row.shown:
            continue
        result, asked = config.folder(row, unit) / RESULT_FILE, _digest(config, row, unit)
        if not result.is_file() or json.loads(result.read_text("utf-8")).get("asked") != asked:
            report(f"{unit}: {row.name}: scoring")
            write_json(result, {"asked": asked, **_score(config, row, unit, device)})


def _digest(config: StudyConfig, row: StudyRow, unit: Unit) -> str:
    """Digest of the inputs of a row: its models, and its calibration and test data."""
    found = hashlib.sha256()
    data = {"calibration": config.calibration if row.calibrated else None, **config.tests}
    about = {name: each.model_dump(mode="json") for name, each in data.items() if each is not None}
    kind = row.model_dump(mode="json", include={"elevation_table", "dropout", "samples"})
    if row.median_scaled:
        kind["median_scaled"] = True
    found.update(json.dumps([about, kind, unit.fold], sort_keys=True).encode())
    if row.elevation_table is None:
        for file in config.files(row, unit):
            found.update(file.read_bytes())
    return found.hexdigest()


def _score(config: StudyConfig, row: StudyRow, unit: Unit, device: str) -> dict[str, Any]:
    tests = {name: data_in_fold(data, unit.fold) for name, data in config.tests.items()}
    about: dict[str, Any] = {"name": row.name, "seed": unit.seed, "fold": unit.fold}
    datasets = {name: open_dataset(data) for name, data in tests.items()}
    model, scored, depth_range = None, row, (0.0, 0.0)
    if row.elevation_table is not None:
        table = data_in_fold(row.elevation_table, unit.fold)
        scored = row.model_copy(update={"elevation_table": table})
        depth_range = config.training(_first_trained(config), unit).model.depth_range
    else:
        fit = data_in_fold(config.calibration, unit.fold) if config.calibration else None
        args: dict[str, Any] = {"device": device, "engine": "pytorch"}
        files = config.files(row, unit)
        model = open_row(row, files, calibration=fit if row.calibrated else None, **args)
        datasets = with_a_task(datasets, model.spec.tasks)
        about["parameters"] = assess.count_parameters(model)
        about["calibration"] = model.spec.calibration.model_dump()
    with RowScorer(scored, model, depth_range, device, "pytorch") as scorer:
        figures = {name: scorer.score(tests[name], each).values for name, each in datasets.items()}
    if row.trains and model is not None:
        validation = config.training(row, unit).data.validation
        if validation is not None:
            figures[VALIDATION] = model.spec.metrics.get(validation.title, {})
    return {**about, **figures}


def with_a_task(datasets: Mapping[str, Dataset], tasks: Sequence[str]) -> dict[str, Dataset]:
    """The data sets that have labels for one of a model's tasks, such as none of depth alone for a
    network of classes.

    Raises:
        ValueError: there are none.
    """
    found = {
        name: dataset
        for name, dataset in datasets.items()
        if set(derive(dataset, tasks).tasks) & set(tasks)
    }
    if not found:
        raise ValueError(
            f"none of the tests {', '.join(datasets)} has labels for {', '.join(tasks)}"
        )
    return found


def _first_trained(config: StudyConfig) -> StudyRow:
    return next(row for row in config.rows if row.trains)
