"""The table of methods: rows scored on one split, each with its calibration, timed separately."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.benchmark.measure import take_turns
from emu_perception.data import Dataset
from emu_perception.evaluation import Evaluation, Evaluator
from emu_perception.evaluation.catalogue import FIGURES
from emu_perception.evaluation.frames import FrameLog
from emu_perception.evaluation.result import look_up
from emu_perception.experiments import assess
from emu_perception.experiments.rows import RowScorer, open_row
from emu_perception.experiments.table_config import (
    TableConfig,
    TableRow,
    folder_name,
)
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import Calibration
from emu_perception.inference.predictor import Predictor
from emu_perception.markdown import markdown_table
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import expand

Progress = Callable[[str, int, int], None]
TIMED_IMAGES = 3
TIMED_ROUNDS = 2
"""How often each of them is timed."""
COLUMNS = {
    "calibration": "calibration.scored",
    **{name: name for name in ("parameters", "engine", "device", "precision")},
    **{figure.head: key for key, figure in FIGURES.items()},
}
"""Heads of the table and the keys of a row that they show."""


def compare(
    config: TableConfig,
    *,
    device: str = "auto",
    engine: str = "auto",
    replicates: int = 1000,
    progress: Progress = lambda name, done, total: None,
    report: Path | None = None,
) -> list[dict[str, Any]]:
    """The rows of the table.

    Each holds the keys of `evaluation.result`, whose `seconds_per_frame` is timed apart from the
    scoring (see `time_apart`), and also `name`, `models`, `parameters`, `engine`,
    `device`, `precision`, and `calibration`: its two numbers, what they were `fitted_on`, and how
    the row was `scored`: `none`, `as stored` or `fitted`. An `elevation_table` has no models. A row
    that is held `against` another has `differences` too: by how much each headline figure is larger
    than the other's, and the ends of its 95 % interval, images resampled for both together.

    Args:
        progress: called with what is being done, images done and images in all.
        report: folder that gets a report of each row, in a folder of the row's name if there are
            several.

    Raises:
        ValueError: a model was, or is to be, calibrated on images that it is scored on, or a row is
            compared with one of other images.
    """
    dataset = open_dataset(config.data)
    if config.calibration is not None:
        known = open_dataset(config.calibration)
        assess.check_apart(assess.provenance(config.calibration, known), config.data, dataset)
    alone = len(config.rows) == 1
    rows, sums = [], {}
    for row in config.rows:
        folder = report if report is None or alone else report / folder_name(row.name)
        args = row, config, dataset, device, engine, replicates, progress, folder
        values, sums[row.name] = _score_row(*args)
        rows.append(values)
    for row, values in zip(config.rows, rows, strict=True):
        if row.against is not None and replicates:
            found = sums[row.against].differences(sums[row.name], replicates)
            values["against"] = row.against
            values["differences"] = {key: list(ends) for key, ends in found.items()}
    return rows


def _score_row(
    row: TableRow,
    config: TableConfig,
    dataset: Dataset,
    device: str,
    engine: str,
    replicates: int,
    progress: Progress,
    folder: Path | None,
) -> tuple[dict[str, Any], Evaluator]:
    """Its figures and the sums that they came from."""
    about: dict[str, Any] = {"name": row.name, "models": row.models, "parameters": 0}
    about["calibration"] = {"scored": "none"}
    model, own = None, {}
    if row.elevation_table is None:
        model = open_row(
            row,
            [expand(path) for path in row.models],
            keeps_calibration=row.calibration == "as stored",
            calibration=config.calibration if row.calibration == "fitted" else None,
            device=device,
            engine=engine,
            progress=lambda done, total: progress(f"{row.name}: fitting", done, total),
        )
    with (
        RowScorer(row, model, config.depth_range, device, engine) as scorer,
        FrameLog(folder) if folder is not None and model is not None else nullcontext() as log,
    ):
        if model is not None and scorer.predictor is not None:
            assess.check_not_fitted_on(model, config.data, dataset)  # before the time is taken
            about |= _about(row, model, scorer.predictor)
            own["seconds_per_frame"] = time_apart(scorer.predictor, dataset)
        found = scorer.score(
            config.data,
            dataset,
            replicates=replicates,
            progress=lambda done, total: progress(row.name, done, total),
            log=log,
            void_as_inaccurate=config.void_as_inaccurate,
            depth_classes=config.depth_classes,
        )
        result = Evaluation({**found.values, **own})
        if folder is not None and log is not None and scorer.predictor is not None:
            _write_report(folder, config.data, about, scorer.predictor, result, log)
    return {**about, **result.values}, found.evaluator


def _about(row: TableRow, model: LoadedModel, predictor: Predictor) -> dict[str, Any]:
    calibration = model.spec.calibration
    return {
        "parameters": assess.count_parameters(model),
        "engine": predictor.engine,
        "device": str(predictor.device),
        "precision": predictor.precision,
        "calibration": {
            "scored": row.calibration if calibration != Calibration() else "none",
            **calibration.model_dump(exclude={"fits"}),
        },
    }


def time_apart(predictor: Predictor, dataset: Dataset) -> float:
    """Median seconds from one image in host memory to all maps on the device.

    A few images, one by one, and nothing else: while scoring, decoding and metrics take
    their part of the machine. Each image is predicted once before, so that nothing is compiled.
    """
    samples = [dataset[index] for index in range(min(TIMED_IMAGES, len(dataset)))]
    turns = itertools.cycle(samples)

    def predict() -> None:
        sample = next(turns)
        predictor.predict_on_device(sample.image, sample.intrinsics)

    times = take_turns(
        {"": predict},
        rounds=TIMED_ROUNDS * len(samples),
        warm_up=len(samples),
        device=str(predictor.device),
    )
    return float(np.median(times[""].wall)) / 1e3


def _write_report(
    folder: Path,
    data: DatasetConfig,
    about: dict[str, Any],
    predictor: Predictor,
    result: Evaluation,
    log: FrameLog,
) -> None:
    # Drawing needs packages that scoring does not.
    from emu_perception.evaluation.report import Report, write_report

    spec = predictor.spec
    report = Report(
        title=f"{about['name']} on {data.title}",
        about={
            "model": ", ".join(about["models"]),
            "network": f"{spec.architecture}, {spec.backbone}, {about['parameters']:,} parameters",
            "calibration": f"{about['calibration']['scored']}, fitted on "
            f"{spec.calibration.fitted_on or 'nothing'}",
            "data set": data.title,
            "device": f"{predictor.device}, {predictor.engine}, {predictor.precision}",
        },
        label_set=predictor.label_set,
        extra=about | {"dataset": data.name, "split": data.split},
    )
    write_report(folder, report, result, log)


def table_cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells; columns that no row has a figure for are left out."""
    values = [[look_up(row, key) for key in COLUMNS.values()] for row in rows]
    kept = [i for i in range(len(COLUMNS)) if any(line[i] is not None for line in values)]
    heads = ["method", *(list(COLUMNS)[i] for i in kept)]
    return heads, [
        [row["name"], *(_format(line[i]) for i in kept)] for row, line in zip(rows, values)
    ]


def difference_cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the rows that are compared with another; no cells where there are none."""
    held = [row for row in rows if "differences" in row]
    kept = {k: v for k, v in COLUMNS.items() if any(v in row["differences"] for row in held)}
    heads = ["difference (95 % interval)", *kept]
    cells = []
    for row in held:
        found = (row["differences"].get(key) for key in kept.values())
        cells.append([f"{row['name']} − {row['against']}", *map(_difference, found)])
    return heads, cells


def _difference(ends: list[float] | None) -> str:
    return "–" if ends is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*ends)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown, and that of differences."""
    both = table_cells(rows), difference_cells(rows)
    return "\n".join(markdown_table(heads, cells) for heads, cells in both if cells)


def _format(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
