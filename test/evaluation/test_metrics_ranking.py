"""Histograms against sorting."""

import naive_metrics as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.evaluation import ranking

SCORE = st.floats(0, 2.0**15, width=32)
PIXELS = st.lists(st.tuples(SCORE, st.booleans()), min_size=2, max_size=60).filter(
    lambda pixels: len({flag for _, flag in pixels}) == 2
)


def arrays(pixels):
    return np.array([s for s, _ in pixels], np.float32), np.array([f for _, f in pixels])


@given(st.lists(st.floats(width=32, min_value=0, allow_infinity=True), min_size=2))
def test_quantisation_is_monotone(values):
    scores = np.sort(np.array(values, np.float32))
    assert (np.diff(ranking.quantise(scores).astype(int)) >= 0).all()


@given(st.floats(2.0**-23, 2.0**15, width=32))
def test_a_score_lies_between_the_edges_of_its_bin(value):
    index = ranking.quantise(np.array([value], np.float32))[0]
    edges = ranking.bin_edges()
    assert edges[index] <= value < edges[index + 1] <= edges[index] * (1 + 1 / 256)


def test_odd_scores_fall_into_the_outer_bins():
    scores = np.array([0.0, -0.0, -1.0, 1e-12, np.nan, np.inf, 1e9], np.float32)
    assert ranking.quantise(scores).tolist() == [0] * 4 + [ranking.BINS - 1] * 3


def test_a_view_that_is_not_contiguous_is_quantised_the_same():
    scores = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    assert (ranking.quantise(scores[:, ::2]) == ranking.quantise(scores[:, ::2].copy())).all()


@given(st.integers(1, 3000), st.integers(0, 99), st.sampled_from([7, 256, 3000, ranking.BINS]))
@settings(max_examples=20)
def test_weighted_count_equals_bincount(pixels, seed, size):
    rng = np.random.default_rng(seed)
    bins, weights = rng.integers(0, size, pixels).astype(np.uint16), rng.random(pixels)
    expected = np.bincount(bins, weights, minlength=size)
    assert ranking.weighted_count(bins, weights, size) == pytest.approx(expected)
    assert ranking.count(bins, size).tolist() == np.bincount(bins, minlength=size).tolist()


@given(PIXELS)
def test_auroc_is_within_its_bound(pixels):
    scores, flags = arrays(pixels)
    sides = ranking.split_count(ranking.quantise(scores), flags).T
    exact = naive.auroc(scores, flags)
    assert abs(ranking.auroc(*sides) - exact) <= ranking.auroc_bound(*sides) + 1e-9
    assert ranking.auroc(*sides[::-1]) == pytest.approx(1 - ranking.auroc(*sides))


@given(PIXELS)
def test_area_under_risk_coverage_is_within_its_bound(pixels):
    scores, flags = arrays(pixels)
    histogram = ranking.split_count(ranking.quantise(scores), flags)
    counts, errors = histogram.sum(axis=1), histogram[:, 1]
    exact = naive.risk_area(scores, flags)
    area = ranking.area_under_risk_coverage(counts, errors)
    # The bound is on the order within bins; the rule that sums the curve adds its own 1 %.
    assert abs(area - exact) <= ranking.area_bound(counts, errors) + 0.01
    assert 0 <= area <= 1


@given(
    st.lists(
        SCORE,
        min_size=1,
        max_size=40,
        unique_by=lambda s: int(ranking.quantise(np.float32([s]))[0]),
    )
)
def test_areas_are_exact_where_no_two_pixels_share_a_bin(values):
    scores = np.array(values, np.float32)
    errors = np.random.default_rng(len(values)).random(len(values))
    bins = ranking.quantise(scores)
    counts = ranking.count(bins, ranking.BINS)
    sums = ranking.weighted_count(bins, errors)
    for measure in (ranking.identity, np.sqrt):
        area = ranking.area_under_risk_coverage(counts, sums, measure)
        assert area == pytest.approx(naive.risk_area(scores, errors, measure))


DISTRIBUTIONS = {
    "entropy": lambda rng, n: np.minimum(rng.gamma(0.3, 0.5, n), np.log(19)),
    "variance": lambda rng, n: np.exp(rng.normal(-2, 2, n)),
    "certain": lambda rng, n: np.exp(rng.normal(-12, 1, n)),
    "narrow": lambda rng, n: rng.uniform(1.0, 1.3, n),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_many_pixels_come_within_a_thousandth(name):
    rng = np.random.default_rng(0)
    scores = DISTRIBUTIONS[name](rng, 60_000).astype(np.float32)
    ranks = scores.argsort().argsort() / len(scores)
    wrong = rng.random(len(scores)) < 0.5 * ranks**2
    errors = (rng.normal(size=len(scores)) * (0.2 + ranks)) ** 2
    bins = ranking.quantise(scores)
    histogram = ranking.split_count(bins, wrong)
    sides, counts = histogram.T, histogram.sum(axis=1)

    assert ranking.auroc(*sides) == pytest.approx(naive.auroc(scores, wrong), abs=1e-3)
    assert ranking.area_under_risk_coverage(counts, histogram[:, 1]) == pytest.approx(
        naive.risk_area(scores, wrong), abs=1e-3
    )
    squares = ranking.weighted_count(bins, errors)
    assert ranking.area_under_risk_coverage(counts, squares, np.sqrt) == pytest.approx(
        naive.risk_area(scores, errors, np.sqrt), abs=1e-3
    )


def test_a_rare_error_rate_is_summed_precisely():
    counts, errors = np.array([99_000.0, 1_000.0]), np.array([0.0, 1_000.0])
    retained = np.arange(1, 100_001)
    exact = (np.maximum(retained - 99_000, 0) / retained).mean()
    assert ranking.area_under_risk_coverage(counts, errors) == pytest.approx(exact, rel=1e-6)
    swapped = counts[::-1], np.array([0.0, 99_000.0])
    exact = (np.maximum(retained - 1_000, 0) / retained).mean()
    assert ranking.area_under_risk_coverage(*swapped) == pytest.approx(exact, rel=1e-4)


@given(st.integers(0, 1000))
@settings(max_examples=30)
def test_average_precision_and_false_positive_rate(seed):
    rng = np.random.default_rng(seed)
    # Scores a few bins apart, so that thresholds between them are the same as between bins.
    scores = (1.02 ** rng.integers(0, 60, 80)).astype(np.float32)
    positive = rng.random(80) < 0.3
    positive[:2] = True, False
    sides = ranking.split_count(ranking.quantise(scores), positive).T
    assert ranking.average_precision(*sides) == pytest.approx(
        naive.average_precision(scores, positive)
    )
    assert ranking.fpr_at_tpr(*sides) == pytest.approx(naive.fpr95(scores, positive))


def test_one_kind_of_pixel_alone_has_no_order():
    empty, some = np.zeros(ranking.BINS), np.ones(ranking.BINS)
    assert ranking.auroc(empty, some) is ranking.auroc(some, empty) is None
    assert ranking.auroc_bound(some, empty) is ranking.fpr_at_tpr(some, empty) is None
    assert ranking.average_precision(some, empty) is None
    assert (
        ranking.area_under_risk_coverage(empty, empty) is ranking.area_bound(empty, empty) is None
    )


def test_coarser_histograms_keep_edges_and_totals():
    histogram = np.random.default_rng(0).random((ranking.BINS, 2))
    coarse = ranking.coarsened(histogram, 16)
    assert coarse.sum(axis=0) == pytest.approx(histogram.sum(axis=0))
    assert coarse[3] == pytest.approx(histogram[48:64].sum(axis=0))
    assert ranking.bin_edges(ranking.BINS // 16)[1:-1].tolist() == (
        ranking.bin_edges()[16:-1:16].tolist()
    )
