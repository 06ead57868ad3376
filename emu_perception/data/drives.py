"""Drives through rendered streets: image sequences with everything known about each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from emu_perception import scenes
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import Dataset, Problem
from emu_perception.data.sample import Sample
from emu_perception.data.scenes import (
    SPLITS,
    broken_scenes,
    frame_fields,
    read_scene,
    write_scene,
)
from emu_perception.labels import load_label_set


@register_dataset("scene_drives", splits=tuple(SPLITS), evaluation_split="test")
def build_scene_drives(
    root: Path,
    *,
    split: str,
    size: Sequence[int] = (192, 640),
    drives: int = 20,
    frames: int = 30,
    rate: float = 10.0,
    seed: int = 0,
) -> SceneDrives:
    """Rendered drives with classes, depth, normals, edges and cameras, as image sequences.

    Args:
        root: folder that keeps what was rendered: a drive is rendered as a whole.
        split: `train`, `val`, `test` or `calibration`: different streets each.
        size: height and width.
        drives: streets.
        frames: images of each; the first and the last are neighbours only.
        rate: images a second, at about 10 m/s.
        seed: of the set.
    """
    return SceneDrives(root, split, (int(size[0]), int(size[1])), drives, frames, rate, seed)


class SceneDrives(Dataset):
    """The images of several drives that have both neighbours."""

    tasks = ("semantic", "depth", "normals", "edges")
    sequences = True

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int],
        drives: int,
        frames: int,
        rate: float = 10.0,
        seed: int = 0,
    ) -> None:
        """See `build_scene_drives`."""
        if split not in SPLITS:
            raise ValueError(f"drives have no split '{split}'; they have {', '.join(SPLITS)}")
        if drives < 1 or frames < 3 or rate <= 0:
            raise ValueError(
                "drives need a street, three frames and a rate, got "
                f"{drives} drives of {frames} frames at {rate} Hz"
            )
        self.split, self.size, self.drives, self.frames = split, size, drives, frames
        self.rate, self.seed = rate, seed
        self.label_set = load_label_set("camvid")
        height, width = size
        self._folder = root / f"drive-{height}x{width}-{rate:g}Hz-r{scenes.RENDERER_VERSION}"

    def __len__(self) -> int:
        return self.drives * (self.frames - 2)

    def _place(self, index: int) -> tuple[int, int]:
        """Drive and frame of a sample."""
        drive, frame = divmod(range(len(self))[index], self.frames - 2)
        return drive, frame + 1

    def name(self, index: int) -> str:
        return f"{self.clip(index)}_{self._place(index)[1]:04d}"

    def clip(self, index: int) -> str:
        return f"{self.split}_{self.seed}_{self._place(index)[0]:04d}"

    def drive_seed(self, drive: int) -> int:
        """The renderer's seed of a drive; no two splits or sets share one."""
        state = np.random.SeedSequence([self.seed, SPLITS[self.split], drive])
        return int(state.generate_state(1, np.uint32)[0])

    def _path(self, drive: int, frame: int) -> Path:
        return self._folder / f"{self.drive_seed(drive):010d}" / f"{frame:04d}.npz"

    def _stored(self) -> list[Path]:
        """The frames that were rendered."""
        places = product(range(self.drives), range(self.frames))
        return [path for place in places if (path := self._path(*place)).exists()]

    def stored(self) -> int:
        return len(self._stored())

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        """Reads the frames that were kept; what is not there yet is no problem."""
        yield from broken_scenes(self._stored(), self.size, progress)

    def _frame(self, drive: int, frame: int) -> Sample:
        path = self._path(drive, frame)
        if not path.exists():
            rendered = scenes.StreetDrive(self.drive_seed(drive), self.size, self.frames, self.rate)
            for number, each in enumerate(rendered):
                one = Sample(name="", clip="", **frame_fields(each, odd=False))
                write_scene(path.with_name(f"{number:04d}.npz"), one)
        return Sample(name="", clip="", **read_scene(path, self.size))

    def __getitem__(self, index: int) -> Sample:
        drive, frame = self._place(index)
        before, here, after = (self._frame(drive, frame + step) for step in (-1, 0, 1))
        return replace(
            here,
            name=self.name(index),
            clip=self.clip(index),
            neighbours=(before.image, after.image),
        )
