"""A model against a split: figures, calibration, and the table of methods."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.batch import Request, predict_each
from emu_perception.evaluation import DepthVarianceScaleFit, Evaluation, Evaluator, TemperatureFit
from emu_perception.evaluation.camera_height import ROAD, CameraHeights
from emu_perception.evaluation.elevation import ElevationTable
from emu_perception.evaluation.frames import Frame, FrameLog
from emu_perception.evaluation.median import scaled_to_median
from emu_perception.methods import load_models, monte_carlo_dropout, uncalibrated
from emu_perception.model_file import Calibration, LoadedModel, ModelSpec
from emu_perception.prediction import Prediction
from emu_perception.predictor import Predictor
from emu_perception.training.config import DatasetConfig, expand
from emu_perception.training.data import Dataset, dataset_entry, derive
from emu_perception.training.data_module import open_dataset
from emu_perception.training.sample import Sample
from emu_perception.training.table_config import TableConfig, TableRow

Progress = Callable[[int, int], None]
COLUMNS = {
    "parameters": "parameters",
    "seconds": "seconds_per_frame",
    "mIoU": "semantic.miou",
    "ECE": "semantic.ece",
    "NLL": "semantic.nll",
    "p(acc|cer)": "semantic.p_accurate_certain",
    "p(unc|inacc)": "semantic.p_uncertain_inaccurate",
    "PAvPU": "semantic.pavpu",
    "AUSE": "semantic.ause",
    "RMSE": "depth.rmse",
    "AbsRel": "depth.absrel",
    "d<1.25": "depth.delta1",
    "depth NLL": "depth.nll",
    "depth p(acc|cer)": "depth.p_accurate_certain",
    "depth p(unc|inacc)": "depth.p_uncertain_inaccurate",
    "depth PAvPU": "depth.pavpu",
    "depth AUSE": "depth.ause",
    "mean angle": "normals.mean_angular_error",
    "edge F1": "edges.f1",
    "odsF": "edges.ods_f",
    "parts mIoU": "human_parts.miou",
    "maxF": "saliency.max_f",
}
"""Heads of the table and the keys of `Evaluation` that they show."""


def check_not_fitted_on(model: LoadedModel, data: DatasetConfig) -> None:
    """ValueError if the model was calibrated on the very split that it is to be scored on."""
    if model.spec.calibration.fitted_on.startswith(f"{data.title} ("):
        raise ValueError(
            f"{model.path} was calibrated on {data.title}: figures on it would flatter. Evaluate "
            "another split, or calibrate on another one"
        )


def score(
    predictor: Predictor,
    dataset: Dataset,
    *,
    replicates: int = 1000,
    progress: Progress | None = None,
    log: FrameLog | None = None,
    median_scaled: bool = False,
) -> Evaluation:
    """All figures of a model on a data set, one image at a time.

    Depth is judged at every pixel whose truth is known, those included that the model takes for sky
    or that lie outside its range: otherwise a model would gain by giving up what it finds hard.

    Args:
        predictor: its `masks_depth` is turned off.
        median_scaled: scale each image's depth to its labels' median; see `scaled_to_median`.
        log: takes the figures of each image, for a report.

    Raises:
        ValueError: model and data set differ in their classes, or have no task in common.
    """
    tasks = predictor.spec.tasks
    dataset = derive(dataset, tasks)
    label_set = _common_classes(predictor, dataset)
    depth_range = predictor.spec.depth_range if "depth" in tasks else None
    if label_set is None and not (set(tasks) & set(dataset.tasks)) - {"semantic"}:
        raise ValueError(f"the model has no task of the data set's ({', '.join(dataset.tasks)})")
    evaluator = Evaluator(
        label_set,
        depth_range,
        normals="normals" in tasks,
        edges="edges" in tasks,
        human_parts="human_parts" in tasks,
        saliency="saliency" in tasks,
    )
    heights = CameraHeights()
    predictor.masks_depth = False
    answers = predict_each(
        predictor, _samples(dataset), _asking(predictor.available_maps), warm_up=True
    )
    for index, answer in enumerate(answers):
        sample, prediction = answer.item, answer.prediction
        labels = sample.labels if label_set is not None else None
        depth = sample.depth if depth_range is not None else None
        if median_scaled and depth is not None and depth_range is not None:
            prediction = scaled_to_median(prediction, depth, depth_range)
        if labels is not None and prediction.depth is not None:
            _add_height(heights, predictor.spec, sample, prediction.depth)
        figures = evaluator.update(
            prediction,
            labels=labels,
            depth=depth,
            normals=sample.normals,
            edges=sample.edges,
            human_parts=sample.human_parts,
            saliency=sample.saliency,
            clip=sample.clip,
            seconds=answer.seconds,
            out_of_distribution=sample.odd,
        )
        if log is not None:
            log.add(
                Frame(
                    *(index, sample.name, prediction, figures),
                    image=sample.image,
                    labels=labels,
                    depth=depth,
                )
            )
        if progress is not None:
            progress(index + 1, len(dataset))
    result = evaluator.result(replicates)
    return Evaluation({**result.values, "camera_height": heights.values()})


def _add_height(heights: CameraHeights, spec: ModelSpec, sample: Sample, depth: np.ndarray) -> None:
    """A camera that is unknown is taken for the one that the model assumes."""
    assert spec.label_set is not None and sample.labels is not None
    if ROAD not in spec.label_set.names:
        return
    camera, (height, width) = sample.intrinsics, depth.shape
    if camera is None:
        if spec.camera is None:
            return
        camera = spec.camera.assume(width, height)
    road = sample.labels == spec.label_set.index(ROAD)
    heights.add(depth, road, camera, sample.clip)


def score_elevation_table(
    fitted_on: Dataset, dataset: Dataset, depth_range: tuple[float, float], replicates: int = 1000
) -> Evaluation:
    """Depth figures of an image-free table, as `score` gives those of a model.

    Raises:
        ValueError: a data set has no depth with known cameras.
    """
    table, evaluator = ElevationTable(depth_range), Evaluator(None, depth_range)
    for sample in _samples(fitted_on):
        if sample.depth is not None and sample.intrinsics is not None:
            table.add(sample.depth, sample.intrinsics)
    for sample in _samples(dataset):
        if sample.depth is not None and sample.intrinsics is not None:
            prediction = Prediction(depth=table.depth(sample.intrinsics))
            evaluator.update(prediction, depth=sample.depth, clip=sample.clip)
    if not evaluator.frames:
        raise ValueError("the data set has no depth with known cameras")
    return evaluator.result(replicates)


def calibrate(
    model: LoadedModel,
    data: DatasetConfig,
    *,
    device: str = "auto",
    engine: str = "auto",
    progress: Progress | None = None,
) -> LoadedModel:
    """The model with temperature and depth variance scale fitted on a split.

    A model with members is calibrated as a whole: the temperature acts on their mean.

    Raises:
        ValueError: the split is the one that figures of the data set are reported on, or it has
            no ground truth for the model's tasks.
    """
    entry = dataset_entry(data.name)
    if data.split == entry.evaluation_split:
        raise ValueError(
            f"figures of {data.name} are reported on its split '{data.split}': calibrate on "
            "another one, such as 'calibration'"
        )
    dataset = open_dataset(data)
    predictor = Predictor(uncalibrated(model), device, engine=engine)
    predictor.masks_depth = False  # as `score`
    label_set = _common_classes(predictor, dataset)
    temperature = TemperatureFit() if label_set is not None else None
    variance = None
    if "depth_variance" in predictor.available_maps and "depth" in dataset.tasks:
        variance = DepthVarianceScaleFit(model.spec.depth_range)
    wanted = {"probabilities"} if temperature else set()
    wanted |= {"depth", "depth_variance"} if variance else set()
    if not wanted:
        raise ValueError(f"{data.title} has no ground truth for the model's tasks")
    answers = predict_each(predictor, _samples(dataset), _asking(wanted))
    for index, answer in enumerate(answers):
        sample, prediction = answer.item, answer.prediction
        if temperature is not None and sample.labels is not None:
            temperature.update(sample.labels, probabilities=prediction.probabilities)
        if variance is not None and sample.depth is not None:
            assert prediction.depth is not None and prediction.depth_variance is not None
            variance.update(prediction.depth, prediction.depth_variance, sample.depth)
        if progress is not None:
            progress(index + 1, len(dataset))
    fitted = Calibration(
        temperature=temperature.result() if temperature else 1.0,
        depth_variance_scale=variance.result() if variance else 1.0,
        fitted_on=f"{data.title} ({len(dataset)} images)",
    )
    return replace(model, spec=model.spec.model_copy(update={"calibration": fitted}))


def _samples(dataset: Dataset) -> Iterator[Sample]:
    return (dataset[index] for index in range(len(dataset)))


def _asking(maps: Collection[str]) -> Callable[[Sample], Request]:
    return lambda sample: Request(sample.image, sample.intrinsics, maps)


def open_row(row: TableRow) -> LoadedModel:
    """The model of a row of the table."""
    model = load_models([expand(path) for path in row.models])
    if row.dropout is not None:
        model = monte_carlo_dropout(model, row.dropout, row.samples)
    return model if row.calibrated else uncalibrated(model)


def count_parameters(model: LoadedModel) -> int:
    """Of the network as it was trained; that of an ensemble counts all members."""
    return sum(p.numel() for p in model.network.parameters())


def compare(
    config: TableConfig,
    *,
    device: str = "auto",
    replicates: int = 1000,
    progress: Callable[[str, int, int], None] | None = None,
    report: Path | None = None,
) -> list[dict[str, Any]]:
    """The rows of the table: `name`, `models`, `parameters`, and `Evaluation.values` of each.

    An `elevation_table` has no models and no parameters.

    Args:
        report: folder that gets a report of each row, in a folder of the row's name if there are
            several.
    """
    dataset = open_dataset(config.data)
    rows = []
    for row in config.rows:
        if row.elevation_table is not None:
            known = open_dataset(row.elevation_table)
            found = score_elevation_table(known, dataset, config.depth_range, replicates)
            rows.append({"name": row.name, "models": [], "parameters": 0, **found.values})
            continue
        model = open_row(row)
        check_not_fitted_on(model, config.data)
        parameters = count_parameters(model)
        predictor = Predictor(model, device)

        def follow(done: int, total: int, name: str = row.name) -> None:
            if progress is not None:
                progress(name, done, total)

        folder = (
            report if report is None or len(config.rows) == 1 else report / _file_name(row.name)
        )
        with FrameLog(folder) if folder is not None else nullcontext() as log:
            found = score(
                *(predictor, dataset),
                replicates=replicates,
                progress=follow,
                log=log,
                median_scaled=row.median_scaled,
            )
        about = {
            "name": row.name,
            "models": row.models,
            "parameters": parameters,
            "calibration": model.spec.calibration.model_dump(),
        }
        if folder is not None and log is not None:
            _write_report(folder, config.data, about, predictor, found, log)
        predictor.close()
        rows.append({**about, **found.values})
    return rows


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
            "calibrated on": spec.calibration.fitted_on or "nothing",
            "data set": data.title,
            "device": f"{predictor.device}, {predictor.engine}, {predictor.precision}",
        },
        label_set=predictor.label_set,
        extra=about | {"dataset": data.name, "split": data.split},
    )
    write_report(folder, report, result, log)


def _file_name(name: str) -> str:
    """A row's name without what has no place in the name of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def table_cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells; columns that no row has a figure for are left out."""
    values = [[_look_up(row, key) for key in COLUMNS.values()] for row in rows]
    kept = [i for i in range(len(COLUMNS)) if any(line[i] is not None for line in values)]
    heads = ["method", *(list(COLUMNS)[i] for i in kept)]
    return heads, [
        [row["name"], *(_format(line[i]) for i in kept)] for row, line in zip(rows, values)
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    heads, cells = table_cells(rows)
    lines = [heads, ["---"] * len(heads), *cells]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped) + "\n"


def _look_up(row: dict[str, Any], key: str) -> float | None:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _format(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _common_classes(predictor: Predictor, dataset: Dataset) -> Any:
    """The label set of both; None if one of them has none."""
    mine, its = predictor.label_set, dataset.label_set
    if mine is None or its is None or "semantic" not in dataset.tasks:
        return None
    if mine.names != its.names:
        raise ValueError(
            f"the model's classes are '{mine.name}', the data set's '{its.name}': relabel it "
            "(label_set in a configuration, --label-set here)"
        )
    return mine
