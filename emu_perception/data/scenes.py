"""The procedural scenes as a data set: a fixed set by seed, or endless."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from emu_perception import scenes
from emu_perception.atomic import replacing
from emu_perception.camera import Intrinsics
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import (
    Dataset,
    Problem,
    Subset,
)
from emu_perception.data.randomness import SharedEpoch
from emu_perception.data.sample import DataError, Sample
from emu_perception.labels import load_label_set

_LABEL_SETS = {"street": "camvid", "room": "nyuv2_13"}
SPLITS = {"train": 0, "val": 1, "test": 2, "calibration": 3}
_FIELDS = ("image", "labels", "depth", "normals", "edges", "odd")


@register_dataset("scenes", splits=tuple(SPLITS), evaluation_split="test", needs_root=False)
def build_scenes(
    root: Path | None,
    *,
    split: str,
    scene: str = "street",
    size: Sequence[int] = (256, 512),
    count: int = 300,
    seed: int = 0,
    endless: bool = False,
    odd_objects: bool = False,
    close_vehicles: bool = False,
) -> SceneDataset:
    """Rendered scenes with classes, depth, normals, edges and cameras, all exact.

    Args:
        root: folder that keeps what was rendered; None = render anew every time.
        split: `train`, `val`, `test` or `calibration`: different scenes each.
        scene: `street` (CamVid's classes) or `room` (NYUv2's thirteen).
        size: height and width.
        count: scenes in an epoch.
        seed: of the set.
        endless: other scenes in every epoch, kept nowhere.
        odd_objects: with objects that belong to no class, for tests of uncertainty.
        close_vehicles: with more vehicles right before a street's camera.
    """
    return SceneDataset(
        split,
        scene=scene,
        size=(int(size[0]), int(size[1])),
        count=count,
        seed=seed,
        endless=endless,
        odd_objects=odd_objects,
        close_vehicles=close_vehicles,
        folder=root,
    )


class SceneDataset(Dataset):
    """Scenes by index. Rendering one takes about a second on a CPU core: keep a fixed set in a
    folder."""

    tasks = ("semantic", "depth", "normals", "edges")

    def __init__(
        self,
        split: str = "train",
        *,
        scene: str = "street",
        size: tuple[int, int] = (256, 512),
        count: int = 300,
        seed: int = 0,
        endless: bool = False,
        odd_objects: bool = False,
        close_vehicles: bool = False,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """See `build_scenes`; a `device` other than the CPU excludes worker processes."""
        if split not in SPLITS:
            raise ValueError(f"scenes have no split '{split}'; they have {', '.join(SPLITS)}")
        if scene not in _LABEL_SETS:
            raise ValueError(f"there are no scenes '{scene}'; there are {', '.join(_LABEL_SETS)}")
        if count < 1:
            raise ValueError(f"a set of scenes needs at least one, got {count}")
        self.split, self.scene, self.size, self.count = split, scene, size, count
        self.seed, self.endless, self.odd_objects = seed, endless, odd_objects
        self.close_vehicles = close_vehicles
        self.device = device
        self.label_set = load_label_set(_LABEL_SETS[scene])
        self._epoch = SharedEpoch()
        self._folder: Path | None = None
        if folder is not None and not endless:
            height, width = size
            odd = ("-odd" if odd_objects else "") + ("-close" if close_vehicles else "")
            self._folder = folder / f"{scene}{odd}-{height}x{width}-r{scenes.RENDERER_VERSION}"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        index = range(self.count)[index]
        epoch = f"{self._epoch.get()}_" if self.endless else ""
        return f"{self.split}_{self.seed}_{epoch}{index:06d}"

    def clip(self, index: int) -> str:
        return self.name(index)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.set(epoch)

    def scene_seed(self, index: int) -> int:
        """The renderer's seed of a scene; no two splits, sets or epochs share one."""
        epoch = self._epoch.get() + 1 if self.endless else 0
        state = np.random.SeedSequence([self.seed, SPLITS[self.split], epoch, index])
        return int(state.generate_state(1, np.uint64)[0])

    def _path(self, index: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{self.scene_seed(index):020d}.npz"

    def __getitem__(self, index: int) -> Sample:
        name = self.name(index)
        path = self._path(index)
        if path is not None and path.exists():
            return Sample(name=name, clip=name, **read_scene(path, self.size))
        frame = scenes.render_scene(
            self.scene_seed(index),
            self.size,
            self.scene,
            odd_objects=self.odd_objects,
            close_vehicles=self.close_vehicles,
            device=self.device,
        )
        sample = Sample(name=name, clip=name, **frame_fields(frame, odd=self.odd_objects))
        if path is not None:
            write_scene(path, sample)
        return sample

    def prepare(self, workers: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
        """Render what the folder does not hold yet, with several processes.

        It may be interrupted at any time and called again. `progress(done, total)` counts scenes.
        """
        paths = [self._path(index) for index in range(self.count)]
        missing = [i for i, path in enumerate(paths) if path is not None and not path.exists()]
        loader = DataLoader(
            Subset(self, missing),  # type: ignore[arg-type]
            batch_size=1,
            num_workers=workers,
            collate_fn=len,
        )
        for done, _ in enumerate(loader, start=1):
            if progress is not None:
                progress(done, len(missing))

    def stored(self) -> int:
        return len(self._stored())

    def _stored(self) -> list[Path]:
        """The scenes that were rendered."""
        paths = (self._path(index) for index in range(self.count))
        return [path for path in paths if path is not None and path.exists()]

    def problems(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
        """Reads the scenes that were kept; what is not there yet is no problem."""
        yield from broken_scenes(self._stored(), self.size, progress)


def frame_fields(frame: scenes.SceneFrame, *, odd: bool) -> dict[str, Any]:
    """A rendered frame as fields of a `Sample`, the out-of-distribution mask only on request."""
    known: dict[str, Any] = {field: getattr(frame, field) for field in _FIELDS}
    known["edges"] = frame.edges.astype(np.uint8)
    known["odd"] = frame.odd.astype(np.uint8) if odd else None
    return {**known, "intrinsics": frame.intrinsics}


def write_scene(path: Path, sample: Sample) -> None:
    """Keep a rendered sample. Whole or not at all, whichever process comes first."""
    camera = sample.intrinsics
    assert camera is not None
    arrays = {f: getattr(sample, f) for f in _FIELDS if getattr(sample, f) is not None}
    arrays["camera"] = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def broken_scenes(
    paths: Sequence[Path],
    size: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Problem]:
    """Problems of stored samples, file by file."""
    for done, path in enumerate(paths, start=1):
        try:
            read_scene(path, size)
        except DataError as error:
            yield Problem.of(error, path)
        if progress is not None:
            progress(done, len(paths))


def read_scene(path: Path, size: tuple[int, int]) -> dict[str, Any]:
    """The fields that `write_scene` kept; DataError if the file is another one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            known: dict[str, Any] = {name: arrays[name] for name in arrays.files}
        if "odd" in known:
            known["odd"] = known["odd"].astype(np.uint8)
        fx, fy, cx, cy = known.pop("camera").tolist()
        known["intrinsics"] = Intrinsics(fx, fy, cx, cy, width=size[1], height=size[0])
        Sample(name=path.stem, clip="", **known).check()
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        what = error.what if isinstance(error, DataError) else repr(error)
        raise DataError.at(path, f"is not a kept scene ({what}); delete it") from None
    return known
