"""Semi-dense metric depth of a video with known camera poses, by plane-sweep stereo.

Plane sweep: Collins, "A space-sweep approach to true multi-image matching" (CVPR 1996). Each
frame is compared with its neighbours, warped as if the scene were a plane parallel to the image at
each of many depths; the depth of the best normalised cross-correlation wins. A pixel keeps it only
where the match is good and distinct, and where a neighbouring frame found the same point. Moving
objects rarely pass these checks; sky and bare surfaces never do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.atomic import write_bytes
from emu_perception.data import files
from emu_perception.data.sample import DataError

DEPTH_PER_METRE = 256


@dataclass(frozen=True)
class SweepSettings:
    """Settings of the plane sweep."""

    neighbours: tuple[int, ...] = (-6, -4, -2, 2, 4, 6)
    """Frames to compare with, relative to the frame."""
    depths: tuple[float, float] = (2.5, 60.0)
    """Metres: nearest and farthest plane."""
    planes: int = 60
    """Their number, equally far apart in inverse depth."""
    window: int = 7
    """Pixels, odd: side of the compared windows."""
    min_correlation: float = 0.7
    """A match below this normalised cross-correlation is dropped."""
    min_distinct: float = 0.04
    """Smallest difference in correlation to the best plane elsewhere."""
    tolerance: float = 0.06
    """Largest relative difference of depth between frames that agree."""
    checked_with: tuple[int, ...] = (-6, 6)
    """Frames whose own depth is compared, relative to the frame; one of them must agree."""


def read_poses(path: Path, count: int) -> np.ndarray:
    """`(N, 4, 4)` camera-to-world poses from a text file of 3x4 matrices, one per line, metres.

    Raises:
        DataError: the file does not hold `count` lines of twelve finite numbers.
    """
    try:
        values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError.at(path, f"cannot be read as poses: {error}") from None
    if values.shape != (count, 12) or not np.isfinite(values).all():
        raise DataError.at(path, f"holds {values.shape} numbers, expected {(count, 12)}")
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3] = values.reshape(-1, 3, 4)
    return poses


class PlaneSweep:
    """Depth of the frames of one video."""

    def __init__(
        self,
        images: Sequence[Path],
        poses: np.ndarray,
        camera: np.ndarray,
        settings: SweepSettings | None = None,
    ) -> None:
        """
        Args:
            images: in order of time, of one size.
            poses: `(N, 4, 4)` camera-to-world, metres.
            camera: `(3, 3)` intrinsic matrix in pixels.
        """
        self.images, self.poses = list(images), poses
        self.camera = camera.astype(np.float64)
        self.settings = settings or SweepSettings()
        near, far = self.settings.depths
        self.inverse = torch.linspace(1 / far, 1 / near, self.settings.planes)
        self._sweep = lru_cache(maxsize=32)(self._swept)
        self._grey = lru_cache(maxsize=32)(self._read)

    def depth(self, index: int) -> np.ndarray:
        """`(H, W)` float32 metres of a frame; 0 where no depth is certain."""
        own = self._sweep(index)
        agree = torch.zeros_like(own)
        for step in self.settings.checked_with:
            if 0 <= index + step < len(self.images):
                agree += self._agrees(index, index + step, own)
        kept = torch.where(agree > 0, own, torch.zeros_like(own))
        return kept.numpy()

    def _read(self, index: int) -> Tensor:
        """`(1, 1, H, W)` grey values."""
        grey = cv2.cvtColor(files.read_image(self.images[index]), cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(grey).float()[None, None] / 255

    def _motion(self, index: int, other: int) -> np.ndarray:
        """`(4, 4)`: a frame's camera coordinates to another's."""
        return np.linalg.inv(self.poses[other]) @ self.poses[index]

    def _swept(self, index: int) -> Tensor:
        """`(H, W)` depth of the best plane; 0 where the match is poor or ambiguous."""
        settings, reference = self.settings, self._grey(index)
        scores = []
        for step in settings.neighbours:
            if 0 <= index + step < len(self.images):
                warped, inside = self._warp(index, index + step)
                score = _correlation(reference, warped, settings.window)
                scores.append(torch.where(inside, score, torch.full_like(score, -1.0)))
        if not scores:
            return torch.zeros(reference.shape[-2:])
        # Occluded views match badly: the better half of them decides.
        best = torch.stack(scores).topk(max(1, len(scores) // 2), dim=0).values.mean(0)
        top, plane = best.max(0)
        number = torch.arange(len(best))[:, None, None]
        elsewhere = best.masked_fill((number - plane).abs() <= 2, -1.0).amax(0)
        offset = _parabola(best, plane)
        inner = (plane > 0) & (plane < len(best) - 1)
        good = inner & (top > settings.min_correlation)
        good &= top - elsewhere > settings.min_distinct
        inverse = self.inverse[plane] + offset * (self.inverse[1] - self.inverse[0])
        return torch.where(good, 1 / inverse, torch.zeros_like(inverse))

    def _warp(self, index: int, other: int) -> tuple[Tensor, Tensor]:
        """`(D, H, W)` another frame seen through the planes, and whether its pixels are inside."""
        source = self._grey(other)
        height, width = source.shape[-2:]
        motion = self._motion(index, other)
        back = np.linalg.inv(self.camera)
        turned = torch.from_numpy(self.camera @ motion[:3, :3] @ back).float()
        moved = torch.from_numpy(self.camera @ motion[:3, 3]).float()
        pixels = _pixels(height, width) @ turned.T  # (H, W, 3)
        points = pixels[None] + self.inverse[:, None, None, None] * moved
        place = points[..., :2] / points[..., 2:].clamp_min(1e-3)
        size = torch.tensor([width, height], dtype=torch.float32)
        grid = (place + 0.5) / size * 2 - 1
        inside = (grid.abs() < 1).all(-1) & (points[..., 2] > 1e-3)
        many = source.expand(len(grid), 1, height, width)
        warped = F.grid_sample(many, grid, mode="bilinear", align_corners=False)
        return warped[:, 0], inside

    def _agrees(self, index: int, other: int, depth: Tensor) -> Tensor:
        """`(H, W)` 1 where another frame found the same point, else 0."""
        height, width = depth.shape
        motion = torch.from_numpy(self._motion(index, other)).float()
        camera = torch.from_numpy(self.camera).float()
        rays = _pixels(height, width) @ torch.linalg.inv(camera).T
        points = rays * depth[..., None] @ motion[:3, :3].T + motion[:3, 3]
        place = points @ camera.T
        x, y = (place[..., :2] / place[..., 2:].clamp_min(1e-3)).round().long().unbind(-1)
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (points[..., 2] > 0)
        there = self._sweep(other)[y.clamp(0, height - 1), x.clamp(0, width - 1)]
        same = (points[..., 2] - there).abs() < self.settings.tolerance * there
        return (seen & (depth > 0) & same).float()


def _pixels(height: int, width: int) -> Tensor:
    """`(H, W, 3)` homogeneous pixel coordinates."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32),
        torch.arange(width, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x, y, torch.ones_like(x)], -1)


def _correlation(reference: Tensor, warped: Tensor, window: int) -> Tensor:
    """`(D, H, W)` normalised cross-correlation in windows; low where there is no texture."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, 1, window // 2, count_include_pad=False)

    a, b = reference, warped[:, None]
    mean_a, mean_b = mean(a), mean(b)
    variance_a = mean(a * a) - mean_a**2
    variance_b = mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    noise = 1e-4  # (grey value 0.01)²
    scale = torch.sqrt((variance_a + noise).clamp_min(0) * (variance_b + noise).clamp_min(0))
    return (covariance / scale.clamp_min(1e-8))[:, 0]


def _parabola(scores: Tensor, plane: Tensor) -> Tensor:
    """`(H, W)` in [-0.5, 0.5]: the maximum between planes, by a parabola through three scores."""
    middle = plane.clamp(1, len(scores) - 2)[None]
    low, top, high = (scores.gather(0, middle + step)[0] for step in (-1, 0, 1))
    bend = (low - 2 * top + high).clamp_max(-1e-6)
    return (0.5 * (low - high) / bend).clamp(-0.5, 0.5)


def write_depth(
    root: Path,
    out: Path,
    every: int = 1,
    settings: SweepSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the depth of a posed video as a data set `folder`; returns the number of frames.

    Args:
        root: holds `images`, `poses.txt` (camera-to-world, 3x4 per line, metres) and
            `intrinsics.json` with the entry `all`.
        out: gets `images` (a link), `intrinsics.json` and `depth` (16-bit PNG, metres x 256).
            Frames that it has are kept.
        every: take every n-th frame.
    """
    images = list(files.list_files(root / "images").items())
    files.require_items(images, root / "images", "images")
    cameras = root / "intrinsics.json"
    values = files.read_json(cameras).get("all")
    if not isinstance(values, list) or len(values) != 4:
        raise DataError.at(cameras, "has no entry 'all' of [fx, fy, cx, cy]")
    fx, fy, cx, cy = map(float, values)
    camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    poses = read_poses(root / "poses.txt", len(images))
    sweep = PlaneSweep([path for _, path in images], poses, camera, settings)
    (out / "depth").mkdir(parents=True, exist_ok=True)
    write_bytes(out / "intrinsics.json", cameras.read_bytes())
    if not (out / "images").exists():
        (out / "images").symlink_to((root / "images").resolve(), target_is_directory=True)
    chosen = range(0, len(images), every)
    for done, index in enumerate(chosen, start=1):
        path = out / "depth" / f"{images[index][0]}.png"
        if not path.exists():
            stored = np.rint(sweep.depth(index) * DEPTH_PER_METRE).astype(np.uint16)
            partial = path.with_suffix(".partial.png")
            cv2.imwrite(str(partial), stored)
            partial.replace(path)
        if progress is not None:
            progress(done, len(chosen))
    return len(chosen)
