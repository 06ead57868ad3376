"""A model against a split: its figures, and its calibration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from emu_perception.data import (
    Dataset,
    dataset_entry,
    derive,
)
from emu_perception.data.sample import Sample
from emu_perception.evaluation import DepthVarianceScaleFit, Evaluation, Evaluator, TemperatureFit
from emu_perception.evaluation.camera_height import ROAD, CameraHeights
from emu_perception.evaluation.elevation import ElevationTable
from emu_perception.evaluation.frames import Frame, FrameLog
from emu_perception.evaluation.median import scaled_to_median
from emu_perception.evaluation.merging import Merging, resolved
from emu_perception.inference.batch import Request, predict_each
from emu_perception.inference.methods import uncalibrated
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import Fit, ModelSpec
from emu_perception.inference.predictor import Predictor
from emu_perception.prediction import UNLABELLED, Prediction
from emu_perception.tasks import other_tasks
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import Strict

Progress = Callable[[int, int], None]


class CalibrationConfig(Strict):
    """Data sets to calibrate on."""

    data: list[DatasetConfig] = Field(min_length=1)
    """Held-out images; each data set has the same weight."""


def check_not_fitted_on(model: LoadedModel, data: DatasetConfig, dataset: Dataset) -> None:
    """ValueError if the model was calibrated on samples that it is to be scored on."""
    calibration = model.spec.calibration
    for fit in calibration.fits.values():
        for each in (fit, *fit.further):
            check_apart(each, data, dataset)
    # Files of older versions contain only this text.
    if not calibration.fits and calibration.fitted_on.startswith(f"{data.title} ("):
        raise ValueError(_flattering(calibration.fitted_on, data))


def check_apart(fit: Fit, data: DatasetConfig, dataset: Dataset) -> None:
    """ValueError if a calibration's data and a data set to be scored on share samples."""
    if fit.dataset == data.name:
        known = frozenset(fit.samples)
        shared = [name for name in map(dataset.name, range(len(dataset))) if name in known]
        if shared:
            raise ValueError(
                f"{_flattering(fit.title, data)} ({len(shared)} images are in both, such as "
                f"'{shared[0]}')"
            )


def _flattering(fitted_on: str, data: DatasetConfig) -> str:
    return (
        f"the model was calibrated on {fitted_on}: figures on {data.title} would flatter. Evaluate "
        "another split, or calibrate on another one"
    )


def provenance(data: DatasetConfig, dataset: Dataset) -> Fit:
    """Describe the data of a calibration."""
    return _fitted_on(data, map(dataset.name, range(len(dataset))))


def _fitted_on(data: DatasetConfig, samples: Iterable[str]) -> Fit:
    names = tuple(samples)
    return Fit(title=f"{data.title} ({len(names)} images)", dataset=data.name, samples=names)


@dataclass(frozen=True)
class Assessment(Evaluation):
    """The figures of a model, and the sums that they came from, to compare it with another."""

    evaluator: Evaluator


def score(
    predictor: Predictor,
    dataset: Dataset,
    *,
    replicates: int = 1000,
    progress: Progress | None = None,
    log: FrameLog | None = None,
    median_scaled: bool = False,
    void_as_inaccurate: bool = False,
    depth_classes: Collection[str] | None = None,
) -> Assessment:
    """All figures of a model on a data set, one image at a time.

    A data set with coarser classes than the model's (`LabelSet.finer`) is scored in its own
    classes, whose probabilities are sums of the model's. A coarse label in the model's classes
    counts as the predicted class where that is one of those it covers.

    Depth is judged at every pixel whose truth is known, those included that the model takes for sky
    or that lie outside its range: otherwise a model would gain by giving up what it finds hard.

    Args:
        predictor: its `masks_depth` is turned off.
        median_scaled: scale each image's depth to its labels' median; see `scaled_to_median`.
        log: takes the figures of each image, for a report.
        void_as_inaccurate, depth_classes: of `Evaluator`.

    Raises:
        ValueError: model and data set differ in their classes, or have no task in common.
    """
    tasks = predictor.spec.tasks
    dataset = derive(dataset, tasks)
    merging = Merging.of(predictor.label_set, dataset.label_set)
    label_set = merging.label_set if merging else _common_classes(predictor, dataset)
    depth_range = predictor.spec.depth_range if "depth" in tasks else None
    if label_set is None and not (set(tasks) & set(dataset.tasks)) - {"semantic"}:
        raise ValueError(f"the model has no task of the data set's ({', '.join(dataset.tasks)})")
    evaluator = Evaluator(
        label_set,
        depth_range,
        tasks=[task for task in other_tasks() if task in tasks],
        void_as_inaccurate=void_as_inaccurate,
        depth_classes=depth_classes,
    )
    heights = CameraHeights()
    predictor.masks_depth = False
    answers = predict_each(
        predictor, _samples(dataset), _asking(predictor.available_maps), warm_up=True
    )
    for index, answer in enumerate(answers):
        sample, prediction = answer.item, answer.prediction
        if merging is not None:
            prediction = merging.merged(prediction)
        labels = sample.labels if label_set is not None else None
        if labels is not None and dataset.label_groups:
            labels = resolved(labels, prediction.labels, dataset.label_groups, len(label_set))
        depth = sample.depth if depth_range is not None else None
        if median_scaled and depth is not None and depth_range is not None:
            prediction = scaled_to_median(prediction, depth, depth_range)
        if labels is not None and prediction.depth is not None:
            _add_height(heights, predictor.spec, sample, prediction.depth)
        figures = evaluator.update(
            prediction,
            labels=labels,
            depth=depth,
            others={task.field: sample.get(task.field) for task in other_tasks().values()},
            clip=sample.clip,
            seconds=answer.seconds,
            out_of_distribution=sample.odd,
        )
        if log is not None:
            log.add(
                Frame(
                    index,
                    sample.name,
                    prediction,
                    figures,
                    image=sample.image,
                    labels=labels,
                    depth=depth,
                )
            )
        if progress is not None:
            progress(index + 1, len(dataset))
    result = evaluator.result(replicates)
    return Assessment({**result.values, "camera_height": heights.values()}, evaluator)


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
    fitted_on: Dataset,
    dataset: Dataset,
    depth_range: tuple[float, float],
    replicates: int = 1000,
    void_as_inaccurate: bool = False,
) -> Assessment:
    """Depth figures of an image-free table, as `score` gives those of a model.

    Raises:
        ValueError: a data set has no depth with known cameras.
    """
    table = ElevationTable(depth_range)
    evaluator = Evaluator(None, depth_range, void_as_inaccurate=void_as_inaccurate)
    for sample in _samples(fitted_on):
        if sample.depth is not None and sample.intrinsics is not None:
            table.add(sample.depth, sample.intrinsics)
    for sample in _samples(dataset):
        if sample.depth is not None and sample.intrinsics is not None:
            prediction = Prediction(depth=table.depth(sample.intrinsics))
            evaluator.update(prediction, depth=sample.depth, clip=sample.clip)
    if not evaluator.frames:
        raise ValueError("the data set has no depth with known cameras")
    return Assessment(evaluator.result(replicates).values, evaluator)


def calibrate(
    model: LoadedModel,
    data: DatasetConfig | Sequence[DatasetConfig],
    *,
    device: str = "auto",
    engine: str = "auto",
    progress: Progress | None = None,
) -> LoadedModel:
    """The model with temperature and depth variance scale fitted on one data set or several.

    A number that the data have no ground truth for stays as it was, so that the two may come from
    different data. Of several data sets, each has the same weight. A model with members is
    calibrated as a whole: the temperature acts on their mean. Images of unknown cameras do not
    enter the fit of the variance scale: the variance of an assumed focal length is added after
    scaling.

    Raises:
        ValueError: a split is the one that figures of its data set are reported on, or there is no
            ground truth for the model's tasks, or depth of unknown cameras alone.
    """
    sources = [data] if isinstance(data, DatasetConfig) else list(data)
    for each in sources:
        _check_split(each)
    opened = [open_dataset(each) for each in sources]
    images, done = sum(map(len, opened)), 0
    # Predictors fold a network and take it to their own precision: the model's stays as it is.
    described = uncalibrated(model)
    plain = LoadedModel(copy.deepcopy(model.network), described.spec, model.path)
    predictor = Predictor(plain, device, engine=engine)
    predictor.masks_depth = False  # as `score`
    temperatures: list[tuple[TemperatureFit, Fit]] = []
    variances: list[tuple[DepthVarianceScaleFit, Fit]] = []
    for each, dataset in zip(sources, opened, strict=True):
        label_set = _common_classes(predictor, dataset)
        temperature = TemperatureFit() if label_set is not None else None
        variance = None
        if "depth_variance" in predictor.available_maps and "depth" in dataset.tasks:
            variance = DepthVarianceScaleFit(model.spec.depth_range)
        wanted = {"probabilities"} if temperature else set()
        wanted |= {"depth", "depth_variance"} if variance else set()
        if not wanted:
            raise ValueError(f"{each.title} has no ground truth for the model's tasks")
        labelled, measured = [], []
        for answer in predict_each(predictor, _samples(dataset), _asking(wanted)):
            sample, prediction = answer.item, answer.prediction
            if temperature is not None and sample.labels is not None:
                fine = np.where(sample.labels < len(label_set), sample.labels, UNLABELLED)
                temperature.update(fine, probabilities=prediction.probabilities)
                labelled.append(sample.name)
            known_scale = model.spec.camera is None or sample.intrinsics is not None
            if variance is not None and sample.depth is not None and known_scale:
                assert prediction.depth is not None and prediction.depth_variance is not None
                variance.update(prediction.depth, prediction.depth_variance, sample.depth)
                measured.append(sample.name)
            done += 1
            if progress is not None:
                progress(done, images)
        if temperature is not None and temperature.pixels:
            temperatures.append((temperature, _fitted_on(each, labelled)))
        if variance is not None and variance.pixels:
            variances.append((variance, _fitted_on(each, measured)))
    predictor.close()
    calibration = model.spec.calibration
    if temperatures:
        fits, on = zip(*temperatures, strict=True)
        calibration = calibration.fitted(*on, temperature=TemperatureFit.balanced(fits).result())
    if variances:
        scales, on = zip(*variances, strict=True)
        scale = float(np.mean([fit.result() for fit in scales]))
        calibration = calibration.fitted(*on, depth_variance_scale=scale)
    if calibration is model.spec.calibration:
        raise ValueError(
            f"{', '.join(each.title for each in sources)}: nothing to fit to, neither labelled "
            "pixels nor depth of a known camera (metres of an unknown one depend on an assumed "
            "focal length: give its intrinsics)"
        )
    return model.described(model.spec.model_copy(update={"calibration": calibration}))


def _check_split(data: DatasetConfig) -> None:
    """Raise a ValueError if figures are reported on this split."""
    entry = dataset_entry(data.name)
    if data.split == entry.evaluation_split and entry.splits != (data.split,):
        raise ValueError(
            f"figures of {data.name} are reported on its split '{data.split}': calibrate on "
            "another one, such as 'calibration'"
        )


def _samples(dataset: Dataset) -> Iterator[Sample]:
    return (dataset[index] for index in range(len(dataset)))


def _asking(maps: Collection[str]) -> Callable[[Sample], Request]:
    return lambda sample: Request(sample.image, sample.intrinsics, maps)


def count_parameters(model: LoadedModel) -> int:
    """Number of parameters as trained; that of an ensemble counts all members."""
    return sum(p.numel() for p in model.network.parameters())


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
