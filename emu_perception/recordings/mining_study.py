"""Does mining pay? Frames of one drive chosen in several ways, labelled, and trained on.

A network learns from labelled drives, a further drive is recorded, and K of its frames are
labelled: the mined ones, random ones, or every n-th. Each row continues the same training with half
of its samples from these frames; a row without any tells what the further training alone is worth.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from emu_perception.data import Dataset
from emu_perception.evaluation.result import write_json
from emu_perception.experiments.study_config import (
    StudyConfig,
    StudyRow,
    Unit,
    data_in_fold,
)
from emu_perception.inference.predictor import Predictor
from emu_perception.recordings.image_messages import compressed_image_message
from emu_perception.recordings.mine import score_frames
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.reader import BagReader
from emu_perception.recordings.recording import ImageDecoder
from emu_perception.recordings.writer import BagWriter
from emu_perception.training.config import TrainConfig
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.data_module import open_dataset
from emu_perception.training.settings import ConfigError, expand

CHOICE_FILE = "frames.json"
Choice = Literal["mined", "random", "stride"]


class MiningRow(StudyRow):
    """A method of choosing frames, or what it is compared with."""

    frames: Choice | None = None
    """How the frames of `pool` that it learns from are chosen; None: it learns from none."""

    @model_validator(mode="after")
    def _needs_a_start(self) -> MiningRow:
        if self.frames is not None and self.start_from is None:
            raise ValueError(
                f"row '{self.name}' chooses frames: give the row it starts from as start_from"
            )
        return self


class MiningStudy(StudyConfig):
    """A study whose rows may choose frames of a recorded drive."""

    rows: list[MiningRow] = Field(min_length=1)  # type: ignore[assignment]
    pool: DatasetConfig
    """The drive to choose from, in the order of its recording; takes the option `frames`."""
    rate: float = Field(1.0, gt=0)
    """Its frames per second."""
    count: int = Field(10, ge=1)
    """How many frames are labelled: K."""
    min_gap: float = Field(1.0, ge=0)
    """Seconds between mined frames."""
    share: float = Field(0.5, gt=0, lt=1)
    """Fraction of the samples of a row from the frames that it chose."""

    def training(self, row: StudyRow, unit: Unit) -> TrainConfig:
        """The training configuration of a row; chooses its frames the first time."""
        config = super().training(row, unit)
        if not isinstance(row, MiningRow) or row.frames is None:
            return config
        known = config.data.train
        total = sum(each.proportion for each in known)
        pool = data_in_fold(self.pool, unit.fold)
        chosen = pool.model_copy(
            update={
                "options": {**pool.options, "frames": self.chosen(row, unit)},
                "proportion": total * self.share / (1 - self.share),
            }
        )
        data = config.data.model_copy(update={"train": [*known, chosen]})
        return config.model_copy(update={"data": data})

    def chosen(self, row: MiningRow, unit: Unit) -> list[str]:
        """Names of the frames of a row, chosen once.

        Raises:
            ConfigError: they were chosen by other settings.
        """
        file = self.folder(row, unit) / CHOICE_FILE
        pool = data_in_fold(self.pool, unit.fold)
        settings = {
            "choice": row.frames,
            "count": self.count,
            "min_gap": self.min_gap,
            "rate": self.rate,
            "pool": pool.model_dump(mode="json"),
        }
        if not file.is_file():
            dataset = open_dataset(pool)
            if len(dataset) < self.count:
                raise ValueError(f"the pool has {len(dataset)} frames, {self.count} are wanted")
            if row.frames == "mined":
                assert row.start_from is not None
                (model,) = self.files(self.row(row.start_from), unit)
                indices = self._mine(model, dataset, pool)
            elif row.frames == "random":
                indices = sorted(random.Random(unit.seed).sample(range(len(dataset)), self.count))
            else:
                indices = every_nth(len(dataset), self.count, random.Random(unit.seed).random())
            write_json(file, {"settings": settings, "names": [dataset.name(i) for i in indices]})
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            changed = ", ".join(
                name for name in settings if found["settings"].get(name) != settings[name]
            )
            raise ConfigError(
                f"{file} was chosen by other settings ({changed}): take another output, or remove "
                "the folder"
            )
        names: list[str] = found["names"]
        return names

    def _mine(self, model: Path, dataset: Dataset, pool: DatasetConfig) -> list[int]:
        settings = f"{pool.model_dump_json()} {self.rate}"
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        drive = expand(self.output) / f"drive_{digest}"
        if not drive.exists():
            # Under its name only when it is whole: half of it would be mined for good.
            partial = drive.with_name(f"{drive.name}.partial-{os.getpid()}")
            write_drive(partial, dataset, self.rate)
            partial.rename(drive)
        predictor = Predictor.from_pretrained(model, "auto", engine="pytorch")
        with BagReader(drive) as bag:
            scored = score_frames(ImageDecoder(bag, None, Problems()), predictor)
        predictor.close()
        return [candidate.index for candidate in scored.choose(self.count, self.min_gap)]


def every_nth(frames: int, count: int, phase: float) -> list[int]:
    """`count` of so many frames at equal distances; the phase, in [0, 1), sets where they begin."""
    start = min(int(phase * frames), frames - 1)
    return [(i * frames + start) // count for i in range(count)]


def write_drive(path: Path, dataset: Dataset, rate: float) -> None:
    """The images of a data set as a recording, `rate` a second."""
    with BagWriter(path) as bag:
        for index in range(len(dataset)):
            pixels = np.ascontiguousarray(dataset[index].image[..., ::-1])
            good, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
            assert good
            time_ns = round((index + 1) * 1e9 / rate)
            message = compressed_image_message(data.tobytes(), "jpeg", time_ns)
            bag.write("/camera/image_raw/compressed", message, time_ns)
