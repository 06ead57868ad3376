"""The configuration of a table of methods: what `emu evaluate --table` compares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from emu_perception.experiments.rows import Row
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.settings import Strict


def folder_name(name: str) -> str:
    """A row's name without what has no place in the name of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


class TableRow(Row):
    """One row of the table of methods; its `models` are files."""

    calibration: Literal["none", "as stored", "fitted"] = "none"
    """`none`: as if the file held none; `as stored`: the file's, if it holds one; `fitted`: one of
    its own, fitted on the table's `calibration`."""
    against: str | None = None
    """Another row: the table tells how this one differs, image by image, with intervals."""

    @model_validator(mode="after")
    def _check(self) -> TableRow:
        if bool(self.models) == (self.elevation_table is not None):
            raise ValueError(f"row '{self.name}' needs either models or an elevation_table")
        if self.elevation_table is not None and self.calibration != "none":
            raise ValueError(f"row '{self.name}': an elevation_table has nothing to calibrate")
        return self


class TableConfig(Strict):
    """Rows that `emu evaluate --table` compares on one split."""

    data: DatasetConfig
    calibration: DatasetConfig | None = None
    """Data for calibrating the rows with `fitted`: the same for all, kept out of training
    and apart from `data`."""
    rows: list[TableRow] = Field(min_length=1)
    void_as_inaccurate: bool = False
    """Count pixels without ground truth as inaccurate in p(accurate|certain),
    p(uncertain|inaccurate) and PAvPU."""
    depth_classes: list[str] | None = None
    """Classes whose depth is also scored by itself; None: the vehicles that the model has."""
    depth_range: tuple[float, float] = (0.5, 80.0)
    """Metres, of `elevation_table`; a model has its own."""

    @model_validator(mode="after")
    def _check(self) -> TableConfig:
        names = [row.name for row in self.rows]
        for row in self.rows:
            if names.count(row.name) > 1:
                raise ValueError(f"two rows are named '{row.name}'")
            twins = [name for name in names if folder_name(name) == folder_name(row.name)]
            if len(twins) > 1:
                raise ValueError(
                    f"rows '{twins[0]}' and '{twins[1]}' would share the folder "
                    f"'{folder_name(row.name)}' of reports: let their names differ by more than "
                    "punctuation"
                )
            if row.against is not None and row.against not in set(names) - {row.name}:
                raise ValueError(f"row '{row.name}': no other row is named '{row.against}'")
            if row.calibration == "fitted" and self.calibration is None:
                raise ValueError(
                    f"row '{row.name}' is to be fitted: give the data as `calibration`"
                )
        return self
