import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_perception.evaluation.boundary import boundary, boundary_proximity, near_boundary

LABELS = arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0, 1, 2, 254, 255]),
)


def test_two_halves():
    labels = np.repeat(np.array([[3, 3, 3, 3, 8, 8, 8, 8]], np.uint8), 4, axis=0)
    assert boundary(labels)[0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert near_boundary(labels, 1)[0].tolist() == [False] * 2 + [True] * 4 + [False] * 2
    assert boundary_proximity(labels)[0].tolist() == [252, 253, 254, 255, 255, 254, 253, 252]


def test_unlabelled_pixels_are_no_class():
    labels = np.full((5, 9), 4, np.uint8)
    labels[:, 4] = 255
    assert not boundary(labels).any()
    assert not boundary_proximity(labels).any()
    labels[:, 5:] = 6
    assert boundary(labels)[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


@given(LABELS)
def test_boundary_pixels_are_those_with_two_classes_around(labels):
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            around = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            classes = set(around.reshape(-1).tolist()) - {255}
            assert boundary(labels)[y, x] == (len(classes) > 1)


@given(LABELS, st.integers(0, 4))
def test_nearness_counts_rows_and_columns(labels, distance):
    height, width = labels.shape
    edges = boundary(labels)
    near = near_boundary(labels, distance)
    for y in range(height):
        for x in range(width):
            square = edges[
                max(y - distance, 0) : y + distance + 1, max(x - distance, 0) : x + distance + 1
            ]
            assert near[y, x] == square.any()
