"""Normals of planes and of rendered scenes, edges of label maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.data.augmentation import flip, resize
from emu_perception.data.geometry import edges_from_labels, normals_from_depth
from emu_perception.data.sample import Sample

CAMERA = Intrinsics(40.0, 44.0, 15.0, 13.0, 36, 28)


def plane_depth(normal: np.ndarray, distance: float, camera: Intrinsics = CAMERA) -> np.ndarray:
    """Depth of the plane normal·X = -distance; 0 where a ray does not meet it."""
    rays = camera.rays().astype(np.float64)
    along = rays @ normal[:2] + normal[2]
    with np.errstate(divide="ignore"):
        depth = np.where(along < -1e-3, -distance / along, 0)
    return np.where(depth < 200, depth, 0).astype(np.float32)


@settings(max_examples=50)
@given(
    st.floats(-1.2, 1.2),
    st.floats(-1.2, 1.2),
    st.floats(0.5, 30),
    st.floats(0, 0.3),
    st.integers(0, 99),
)
def test_planes_are_exact(
    across: float, down: float, distance: float, missing: float, seed: int
) -> None:
    normal = np.array([np.tan(across), np.tan(down), -1.0])
    normal /= np.linalg.norm(normal)
    depth = plane_depth(normal, distance)
    depth[np.random.default_rng(seed).random(depth.shape) < missing] = 0
    found = normals_from_depth(depth, CAMERA)
    there = (found != 0).any(axis=-1)
    assume(there.any())
    assert np.abs(found[there] - normal).max() < 2e-3
    assert not there[depth == 0].any()


def test_the_ground_faces_up_and_walls_face_the_camera() -> None:
    ground = normals_from_depth(plane_depth(np.array([0.0, -1.0, 0.0]), 1.5), CAMERA)
    assert ground[25, 18] == pytest.approx([0, -1, 0], abs=1e-4)
    wall = normals_from_depth(np.full((28, 36), 7.0, np.float32), CAMERA)
    np.testing.assert_allclose(wall, np.broadcast_to([0, 0, -1], wall.shape), atol=1e-5)


def test_no_normals_across_an_outline() -> None:
    depth = np.full((28, 36), 10.0, np.float32)
    depth[:, 18:] = 5.0
    there = (normals_from_depth(depth, CAMERA) != 0).any(axis=-1)
    assert not there[:, 16:20].any()
    assert there[:, :16].all()
    assert there[:, 20:].all()


def test_nothing_to_fit() -> None:
    sparse = np.zeros((28, 36), np.float32)
    sparse[::6, ::6] = 12.0
    sparse[0, 0], sparse[6, 6] = np.nan, np.inf
    assert (normals_from_depth(sparse, CAMERA) == 0).all()
    one_line = np.zeros((28, 36), np.float32)
    one_line[14] = 3.0
    assert (normals_from_depth(one_line, CAMERA, window=3) == 0).all()
    with pytest.raises(ValueError, match=r"depth is \(28, 30\)"):
        normals_from_depth(np.ones((28, 30)), CAMERA)
    with pytest.raises(ValueError, match="window must be odd"):
        normals_from_depth(sparse, CAMERA, window=4)


def test_normals_mirror_and_scale_with_the_sample() -> None:
    normal = np.array([0.5, -0.6, -0.62])
    normal /= np.linalg.norm(normal)
    depth = plane_depth(normal, 6.0)
    sample = Sample(
        "s",
        "c",
        np.zeros((28, 36, 3), np.uint8),
        depth=depth,
        normals=normals_from_depth(depth, CAMERA),
        intrinsics=CAMERA,
    )
    mirrored = flip(sample)
    again = normals_from_depth(mirrored.depth, mirrored.intrinsics)
    np.testing.assert_allclose(again, mirrored.normals, atol=1e-4)
    half = resize(sample, 14, 18)
    again = normals_from_depth(half.depth, half.intrinsics)
    both = (again != 0).any(axis=-1) & (half.normals != 0).any(axis=-1)
    assert both.mean() > 0.5
    # Halving takes the depth a quarter of a pixel beside the ray; the normal hardly notices.
    assert np.einsum("ij,ij->i", again[both], half.normals[both]).min() > 0.999


def test_edges() -> None:
    labels = np.zeros((5, 6), np.uint8)
    labels[:, 3:] = 4
    labels[4] = 255
    edges = edges_from_labels(labels)
    np.testing.assert_array_equal(edges[:3], np.tile([0, 0, 1, 1, 0, 0], (3, 1)))
    # Beside what is unlabelled a boundary may or may not be; where there is one, there is one.
    assert edges[3].tolist() == [255, 255, 1, 1, 255, 255]
    assert (edges[4] == 255).all()
    assert edges.dtype == np.uint8


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_edges_do_not_depend_on_direction(seed: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (7, 9))
    edges = edges_from_labels(labels)
    np.testing.assert_array_equal(edges_from_labels(labels[:, ::-1]), edges[:, ::-1])
    np.testing.assert_array_equal(edges_from_labels(labels.T), edges.T)
