"""Everything moves with the image: labels, depth, normals, edges and the camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.data.augmentation import (
    IMAGENET_MEAN_RGB,
    Augmentation,
    crop,
    flip,
    resize,
)
from emu_perception.data.photometric import Photometric
from emu_perception.data.sample import DataError, Sample

sides = st.integers(8, 40)
seeds = st.integers(0, 2**32)


def numbered(height: int, width: int, *, camera: bool = True) -> Sample:
    """A sample whose depth numbers its pixels from 1, and whose other maps follow from the
    number."""
    number = np.arange(height * width).reshape(height, width)
    normals = np.stack([number, number + 1, -number - 5], axis=-1).astype(np.float32)
    return Sample(
        "sample",
        "clip",
        np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8),
        labels=(number % 11).astype(np.uint8),
        depth=(number + 1).astype(np.float32),
        normals=normals / np.linalg.norm(normals, axis=-1, keepdims=True),
        edges=(number % 2).astype(np.uint8),
        odd=(number % 3 == 0).astype(np.uint8),
        intrinsics=Intrinsics(17.0, 19.0, 0.4 * width, 0.6 * height, width, height)
        if camera
        else None,
    )


def source_pixels(sample: Sample, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a numbered sample: where there is depth, and the column and row it came from."""
    there = sample.depth > 0
    number = np.rint(sample.depth[there]).astype(int) - 1
    return there, number % width, number // width


@settings(max_examples=60)
@given(sides, sides, sides, sides, st.booleans(), seeds)
def test_a_pixel_keeps_its_ray(
    height: int, width: int, crop_height: int, crop_width: int, mirrored: bool, seed: int
) -> None:
    sample = numbered(height, width)
    augmentation = Augmentation((crop_height, crop_width), flip_probability=float(mirrored))
    out = augmentation(sample, np.random.default_rng(seed))
    assert out.size == (crop_height, crop_width)
    out.check(11)
    there, column, row = source_pixels(out, width)
    assert there.any()
    before, after = sample.intrinsics, out.intrinsics
    x, y = np.moveaxis(after.rays()[there], -1, 0)
    x = -x if mirrored else x
    # Seen by the camera as it was, the ray passes through the pixel that the depth was taken from.
    assert np.abs(x * before.fx + before.cx - column).max() < 0.5 + 1e-3
    assert np.abs(y * before.fy + before.cy - row).max() < 0.5 + 1e-3


@settings(max_examples=40)
@given(sides, sides, st.tuples(sides, sides), seeds)
def test_all_maps_come_from_the_same_pixels(
    height: int, width: int, size: tuple[int, int], seed: int
) -> None:
    sample = numbered(height, width)
    out = Augmentation(size, flip_probability=0)(sample, np.random.default_rng(seed))
    there, column, row = source_pixels(out, width)
    for field in ("labels", "normals", "edges", "odd"):
        source, target = getattr(sample, field), getattr(out, field)
        np.testing.assert_array_equal(target[there], source[row, column])
    assert (out.labels[~there] == 255).all()
    assert (out.edges[~there] == 255).all()
    assert (out.normals[~there] == 0).all()
    assert (out.image[~there] == IMAGENET_MEAN_RGB).all()


def test_without_scale_crop_or_mirror_nothing_changes() -> None:
    sample = numbered(12, 16)
    unchanged = Augmentation((12, 16), scale=(1, 1), flip_probability=0)
    out = unchanged(sample, np.random.default_rng(1))
    for field in ("image", "labels", "depth", "normals", "edges", "odd"):
        np.testing.assert_array_equal(getattr(out, field), getattr(sample, field))
    assert out.intrinsics == sample.intrinsics


def test_the_image_moves_like_the_labels() -> None:
    number = np.arange(30 * 40).reshape(30, 40)
    pixels = np.stack([number // 40 * 8, number % 40 * 4, number * 0], axis=-1).astype(np.uint8)
    out = crop(replace(numbered(30, 40), image=pixels), 7, -5, 20, 30)
    there, column, row = source_pixels(out, 40)
    np.testing.assert_array_equal(out.image[there], pixels[row, column])
    # Doubled: the image is interpolated, so it is near what the labels' pixel had.
    doubled = resize(replace(numbered(30, 40), image=pixels), 60, 80)
    there, column, row = source_pixels(doubled, 40)
    difference = doubled.image[there].astype(int) - pixels[row, column]
    assert np.abs(difference).max() <= 2
    inside = (column > 0) & (column < 39) & (row > 0) & (row < 29)
    assert abs(difference[inside].mean()) < 0.05  # half a pixel's shift would show as 2 or 4


def test_mirrored_twice_is_the_same() -> None:
    sample = numbered(9, 14)
    once, twice = flip(sample), flip(flip(sample))
    for field in ("image", "labels", "depth", "normals", "edges", "odd"):
        np.testing.assert_array_equal(getattr(twice, field), getattr(sample, field))
    assert twice.intrinsics == sample.intrinsics
    np.testing.assert_array_equal(once.normals[:, ::-1] * [-1, 1, 1], sample.normals)


def test_what_a_scale_changes() -> None:
    known, unknown = numbered(12, 16), numbered(12, 16, camera=False)
    double = {"size": (24, 32), "scale": (2, 2), "flip_probability": 0.0}

    def depth(sample: Sample) -> float:
        return float(sample.depth[-1, -1])

    rng = np.random.default_rng(0)
    out = Augmentation(**double)(known, rng)
    assert depth(out) == depth(known)
    assert out.intrinsics.fx == 34
    out = Augmentation(**double)(unknown, rng)
    assert depth(out) == depth(unknown) / 2  # the same camera, twice as near
    assert out.intrinsics is None
    for sample in (known, unknown):
        out = Augmentation(**double, scale_changes="nothing")(sample, rng)
        assert depth(out) == depth(sample)
        assert out.intrinsics is None


def test_sparse_depth_stays_sparse_and_exact() -> None:
    depth = np.zeros((40, 60), np.float32)
    rng = np.random.default_rng(3)
    depth[rng.integers(0, 40, 50), rng.integers(0, 60, 50)] = rng.uniform(5, 80, 50)
    sample = Sample("s", "c", np.zeros((40, 60, 3), np.uint8), depth=depth)
    augmentation = Augmentation((32, 32), scale=(1.2, 2), scale_changes="nothing")
    for seed in range(20):
        out = augmentation(sample, np.random.default_rng(seed)).depth
        assert set(np.unique(out)) <= set(np.unique(depth))


def test_crops_reach_every_corner() -> None:
    sample = numbered(20, 30)
    augmentation = Augmentation((10, 10), scale=(1, 1))
    seen = np.zeros(600, int)
    for seed in range(2500):
        out = augmentation(sample, np.random.default_rng(seed))
        _, column, row = source_pixels(out, 30)
        seen[row * 30 + column] += 1
    assert seen.min() > 0


def test_photometric_changes_the_image_only() -> None:
    sample = numbered(12, 16)
    plain = Augmentation((12, 16), scale=(1, 1), flip_probability=0)
    coloured = replace(plain, photometric=Photometric(gamma=0.3, blur=1.0, noise=5.0))
    out = coloured(sample, np.random.default_rng(5))
    assert not np.array_equal(out.image, sample.image)
    np.testing.assert_array_equal(out.labels, sample.labels)
    again = coloured(sample, np.random.default_rng(5))
    np.testing.assert_array_equal(out.image, again.image)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": (2.0, 0.5)}, "scale must be a range"),
        ({"size": (0, 5)}, "at least 1 x 1"),
        ({"flip_probability": 1.5}, "flip_probability"),
        ({"scale_changes": "depth"}, "'camera' or 'nothing', got 'depth'"),
    ],
)
def test_refusals(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Augmentation(**{"size": (8, 8), **options})


def test_a_sample_tells_what_is_wrong_with_it() -> None:
    sample = numbered(6, 8)
    with pytest.raises(DataError, match=r"label ids \[10\] are neither classes \(0–9\) nor 255"):
        sample.check(10)
    with pytest.raises(DataError, match="intrinsics are those of a 9 x 6 image"):
        replace(sample, intrinsics=Intrinsics(1, 1, 1, 1, 9, 6)).check()
    with pytest.raises(DataError, match=r"depth is float64 \(6, 8\), expected float32 \(6, 8\)"):
        replace(sample, depth=np.ones((6, 8))).check()
    with pytest.raises(DataError, match="depth must be finite"):
        replace(sample, depth=np.full((6, 8), np.inf, np.float32)).check()
    assert sample.tasks == ("semantic", "depth", "normals", "edges")
    assert sample.without("depth", "edges").tasks == ("semantic", "normals")
