"""The configuration of a table of methods: what `emu evaluate --table` compares."""

from __future__ import annotations

from pydantic import Field, model_validator

from emu_perception.training.config import DatasetConfig, Strict


class TableRow(Strict):
    """One row of the table of methods."""

    name: str
    models: list[str] = Field(default_factory=list)
    """A model file, or the members of an ensemble."""
    elevation_table: DatasetConfig | None = None
    """In place of a model: the median depth by elevation angle, fitted on this data."""
    dropout: float | None = Field(None, gt=0, lt=1)
    """Sample dropout at this rate (Monte Carlo Dropout)."""
    samples: int = Field(10, gt=0)
    calibrated: bool = True
    """False: as if the file held no calibration."""
    median_scaled: bool = False
    """Scale each image's depth to its labels' median: for depth that was learnt without labels."""

    @model_validator(mode="after")
    def _check(self) -> TableRow:
        if bool(self.models) == (self.elevation_table is not None):
            raise ValueError(f"row '{self.name}' wants models, or an elevation_table")
        return self


class TableConfig(Strict):
    """Rows that `emu evaluate --table` compares on one split."""

    data: DatasetConfig
    rows: list[TableRow] = Field(min_length=1)
    depth_range: tuple[float, float] = (0.5, 80.0)
    """Metres, of `elevation_table`; a model has its own."""
