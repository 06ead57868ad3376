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
from emu_perception.experiments.study_config import (
    VALIDATION,
    StudyConfig,
    StudyRow,
    Unit,
    data_in_fold,
)
from emu_perception.inference.methods import (
    load_models,
    monte_carlo_dropout,
    uncalibrated,
)
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.predictor import Predictor
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
    if row.elevation_table is not None:
        fitted_on = open_dataset(data_in_fold(row.elevation_table, unit.fold))
        depth_range = config.training(_first_trained(config), unit).model.depth_range
        return {
            **about,
            **{
                name: assess.score_elevation_table(
                    fitted_on, open_dataset(data), depth_range, replicates=0
                ).values
                for name, data in tests.items()
            },
        }
    model = _model(config, row, unit, device)
    opened = {name: open_dataset(data) for name, data in tests.items()}
    datasets = with_a_task(opened, model.spec.tasks)
    for name in datasets:
        assess.check_not_fitted_on(model, tests[name], datasets[name])
    about["parameters"] = assess.count_parameters(model)
    about["calibration"] = model.spec.calibration.model_dump()
    predictor = Predictor(model, device, engine="pytorch")
    figures = {
        name: assess.score(predictor, dataset, replicates=0, median_scaled=row.median_scaled).values
        for name, dataset in datasets.items()
    }
    predictor.close()
    if row.trains:
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


def _model(config: StudyConfig, row: StudyRow, unit: Unit, device: str) -> LoadedModel:
    """The model of a row."""
    model = uncalibrated(load_models(config.files(row, unit)))
    if row.dropout is not None:
        model = monte_carlo_dropout(model, row.dropout, row.samples)
    if not row.calibrated:
        return model
    assert config.calibration is not None
    data = data_in_fold(config.calibration, unit.fold)
    return assess.calibrate(model, data, device=device, engine="pytorch")


def _first_trained(config: StudyConfig) -> StudyRow:
    return next(row for row in config.rows if row.trains)
