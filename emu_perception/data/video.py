"""A video of one camera as image sequences, with the poses of its frames where they are known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.data import files
from emu_perception.data.catalogue import register_dataset
from emu_perception.data.dataset import FileDataset, Item, Readers
from emu_perception.data.posed_video import read_poses
from emu_perception.data.sample import DataError, Sample

CAMERA_FILE = "intrinsics.json"
POSES_FILE = "poses.txt"


@register_dataset("video", splits=("all",), evaluation_split="all")
def build_video(root: Path, *, split: str = "all", step: int = 1, poses: bool = False) -> Video:
    """A video's frames with their neighbours in time, for depth from image sequences.

    Args:
        root: holds `images` (in order of their names), `intrinsics.json` (`all` -> [fx, fy, cx,
            cy] in pixels) and, for `poses`, `poses.txt` (a line per image: the 3x4 camera-to-world
            matrix, metres).
        split: `all`.
        step: frames to the neighbours.
        poses: read how the camera moved.
    """
    if split != "all":
        raise ValueError(f"a video has the split 'all' only, got '{split}'")
    if step < 1:
        raise ValueError(f"step must be positive, got {step}")
    return Video(root, step, poses)


class Video(FileDataset):
    """The frames of a video that have a neighbour on both sides."""

    def __init__(self, root: Path, step: int = 1, poses: bool = False) -> None:
        """See `build_video`."""
        folder = root / "images"
        images = list(files.list_files(folder).items())
        files.require_items([name for name, _ in images], folder, "images")
        if len(images) <= 2 * step:
            raise DataError.at(folder, f"holds {len(images)} images: none has both neighbours")
        self.step = step
        camera = root / CAMERA_FILE
        items = [
            Item(
                name,
                root.name,
                image,
                camera=camera,
                neighbours=(images[index - step][1], images[index + step][1]),
            )
            for index, (name, image) in enumerate(images)
            if step <= index < len(images) - step
        ]
        reader = partial(_read_camera, values=_camera_values(camera))
        super().__init__(items, Readers(intrinsics=reader))
        self.poses = read_poses(root / POSES_FILE, len(images)) if poses else None

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if self.poses is None:
            return sample
        here = range(len(self))[index] + self.step
        others = self.poses[[here - self.step, here + self.step]]
        return replace(sample, motions=np.linalg.inv(others) @ self.poses[here])


def _camera_values(path: Path) -> tuple[float, float, float, float]:
    values = files.read_json(path).get("all")
    if (
        not isinstance(values, list)
        or len(values) != 4
        or not all(isinstance(value, int | float) and value > 0 for value in values)
    ):
        raise DataError.at(path, "needs 'all': [fx, fy, cx, cy], positive, in pixels")
    fx, fy, cx, cy = map(float, values)
    return fx, fy, cx, cy


def _read_camera(
    item: Item, size: tuple[int, int], values: tuple[float, float, float, float]
) -> Intrinsics:
    return Intrinsics(*values, width=size[1], height=size[0])
