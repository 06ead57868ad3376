"""Rows of tables and studies: one type, and one scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from emu_perception.data import Dataset
from emu_perception.evaluation.frames import FrameLog
from emu_perception.experiments import assess
from emu_perception.inference.methods import load_models, monte_carlo_dropout, uncalibrated
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.predictor import Predictor
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import Strict


class Row(Strict):
    """A method that is scored: one model, several as an ensemble, or a table without images."""

    name: str = Field(min_length=1)
    models: list[str] = Field(default_factory=list)
    """Model files in a table, earlier rows in a study; several are the members of an ensemble."""
    elevation_table: DatasetConfig | None = None
    """Not a network: the median depth by elevation angle, fitted on this data."""
    dropout: float | None = Field(None, gt=0, lt=1)
    """Sample the model's dropout at this rate (Monte Carlo Dropout)."""
    samples: int = Field(10, gt=0)
    """Samples of the dropout."""
    median_scaled: bool = False
    """Scale each image's depth to its labels' median: for depth that was trained without labels."""


def open_row(
    row: Row,
    files: Sequence[str | Path],
    *,
    keeps_calibration: bool = False,
    calibration: DatasetConfig | None = None,
    device: str = "auto",
    engine: str = "auto",
    progress: assess.Progress | None = None,
) -> LoadedModel:
    """The model of a row, with the calibration that it is to be scored with.

    Args:
        row: without an `elevation_table`.
        files: of its models.
        keeps_calibration: the file's calibration stays.
        calibration: data to fit one of its own on; None: it has none.
        device, engine: for the fit, as `Predictor` takes them.
        progress: called with images done and in all of the fit.
    """
    model = load_models(files)
    if row.dropout is not None:
        model = monte_carlo_dropout(model, row.dropout, row.samples)
    if keeps_calibration:
        return model
    model = uncalibrated(model)
    if calibration is None:
        return model
    return assess.calibrate(model, calibration, device=device, engine=engine, progress=progress)


class RowScorer:
    """Scores a row on data sets; its model is loaded once. A context manager.

    Args:
        row: what to score.
        model: of `open_row`; None for a row with an `elevation_table`.
        depth_range: metres, of an `elevation_table`; a model has its own.
        device, engine: as `Predictor` takes them.
    """

    def __init__(
        self,
        row: Row,
        model: LoadedModel | None,
        depth_range: tuple[float, float],
        device: str = "auto",
        engine: str = "auto",
    ) -> None:
        self.row, self.model, self._depth_range = row, model, depth_range
        self.predictor = None if model is None else Predictor(model, device, engine=engine)

    def __enter__(self) -> RowScorer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.predictor is not None:
            self.predictor.close()

    def score(
        self,
        data: DatasetConfig,
        dataset: Dataset,
        *,
        replicates: int = 0,
        void_as_inaccurate: bool = False,
        depth_classes: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        log: FrameLog | None = None,
    ) -> assess.Assessment:
        """Figures of the row on a data set.

        Args:
            data: its configuration.
            dataset: opened.
            replicates, void_as_inaccurate, depth_classes, progress, log: of `assess.score`.

        Raises:
            ValueError: the model was calibrated on these images, or has no task in common.
        """
        if self.model is None or self.predictor is None:
            assert self.row.elevation_table is not None
            fitted_on = open_dataset(self.row.elevation_table)
            args = (fitted_on, dataset, self._depth_range, replicates, void_as_inaccurate)
            return assess.score_elevation_table(*args)
        assess.check_not_fitted_on(self.model, data, dataset)
        settings: dict[str, Any] = {"replicates": replicates, "progress": progress, "log": log}
        return assess.score(
            self.predictor,
            dataset,
            median_scaled=self.row.median_scaled,
            void_as_inaccurate=void_as_inaccurate,
            depth_classes=depth_classes,
            **settings,
        )
