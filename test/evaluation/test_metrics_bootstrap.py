"""Confidence intervals: as wide as the spread between data sets, narrow for paired differences."""

from dataclasses import replace

import numpy as np
import pytest

from emu_perception.evaluation import Evaluator, bootstrap
from emu_perception.evaluation.bootstrap import BlockedSums
from emu_perception.evaluation.units import BLOCKS, Units
from emu_perception.prediction import Prediction


def labelled_rows(rates, rng, width=200):
    """One image per rate, of one row: predictions of class 0 that are right at that rate."""
    for rate in rates:
        truth = (rng.random((1, width)) > rate).astype(np.uint8)
        yield Prediction(labels=np.zeros_like(truth)), truth


def accuracy(label_set, rates, rng, clips=None):
    evaluator = Evaluator(label_set)
    for i, (prediction, truth) in enumerate(labelled_rows(rates, rng)):
        evaluator.update(prediction, truth, clip=None if clips is None else clips[i])
    return evaluator.result(replicates=200)


@pytest.mark.parametrize("images", [40, 300], ids=["fewer than groups", "more than groups"])
def test_the_interval_is_as_wide_as_the_spread_between_sets(label_set, images):
    rng = np.random.default_rng(0)
    widths, means = [], []
    for _ in range(6):
        result = accuracy(label_set, rng.beta(4, 2, images), rng)
        low, high = result["intervals"]["semantic.pixel_accuracy"]
        assert low < result["semantic.pixel_accuracy"] < high
        widths.append(high - low)
    means = [
        np.mean([(t == p.labels).mean() for p, t in labelled_rows(rng.beta(4, 2, images), rng)])
        for _ in range(100)
    ]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(means), rel=0.3)


def test_frames_that_resemble_one_another_need_their_clip_named(label_set):
    rng = np.random.default_rng(1)
    rates = np.repeat(rng.beta(4, 2, 30), 20)
    clips = np.repeat(np.arange(30), 20)
    unnamed = accuracy(label_set, rates, rng)["intervals"]["semantic.pixel_accuracy"]
    named = accuracy(label_set, rates, rng, clips)["intervals"]["semantic.pixel_accuracy"]
    assert np.diff(named) > 2.5 * np.diff(unnamed)


def test_one_image_has_no_interval(label_set):
    rng = np.random.default_rng(0)
    assert accuracy(label_set, [0.7], rng)["intervals"] == {}


def test_intervals_surround_every_headline_figure(label_set, make_frame):
    evaluator = Evaluator(label_set, (0.5, 80.0))
    for seed in range(20):
        evaluator.update(*make_frame(seed))
    result = evaluator.result(replicates=200)
    keys = set(result["intervals"])
    for task in ("semantic", "depth"):
        for figure in ("nll", "ause", "pavpu", "p_accurate_certain", "p_uncertain_inaccurate"):
            assert f"{task}.{figure}" in keys
    assert {"semantic.miou", "semantic.ece", "depth.rmse", "depth.absrel"} <= keys
    for key in keys:
        low, high = result["intervals"][key]
        assert low < result[key] < high, key
    again = evaluator.result(replicates=200)
    assert again.values == result.values
    assert evaluator.result(replicates=0)["intervals"] == {}


def test_intervals_move_with_the_figure_they_are_of():
    groups = bootstrap.GroupedSums()
    for group in range(9):
        groups.add(group, {"total": np.float64(group)})

    def headline(sums):
        return {"total": float(sums["total"]), "undefined": None}

    low, high = bootstrap.intervals(groups, headline, {"total": 36.0})["total"]
    assert low < 36 < high
    moved = bootstrap.intervals(groups, headline, {"total": 37.5, "undefined": 1.0})
    assert moved == {"total": (pytest.approx(low + 1.5), pytest.approx(high + 1.5))}


def test_paired_differences_are_sharper_than_two_intervals(label_set, make_frame):
    first, second = Evaluator(label_set, (0.5, 80.0)), Evaluator(label_set, (0.5, 80.0))
    rng = np.random.default_rng(0)
    for seed in range(30):
        prediction, labels, depth = make_frame(seed)
        # The second model is the first with a few more correct labels.
        repaired = np.where((rng.random(labels.shape) < 0.02) & (labels != 255), labels, 255)
        better = np.where(repaired == 255, prediction.labels, repaired).astype(np.uint8)
        first.update(prediction, labels, depth)
        second.update(replace(prediction, labels=better), labels, depth)
    differences = first.differences(second, replicates=100)
    difference, low, high = differences["semantic.pixel_accuracy"]
    one, other = first.result(200), second.result(0)
    expected = other["semantic.pixel_accuracy"] - one["semantic.pixel_accuracy"]
    assert difference == pytest.approx(expected)
    assert 0 < low < difference < high
    width = np.diff(one["intervals"]["semantic.pixel_accuracy"])[0]
    assert high - low < width / 3
    assert differences["depth.rmse"] == (0, 0, 0)


def test_different_frames_cannot_be_paired(label_set, make_frame):
    first, second = Evaluator(label_set), Evaluator(label_set)
    for seed in range(3):
        prediction, labels, _ = make_frame(seed)
        first.update(prediction, labels)
        if seed:
            second.update(prediction, labels)
    with pytest.raises(ValueError, match="3 and 2 frames"):
        first.differences(second)


def test_clips_fill_the_groups_in_order_of_appearance():
    units = Units()
    assert [units.take(clip)[0] for clip in ("b", "a", "b", "b", "c")] == [0, 1, 0, 0, 2]
    images = Units()
    groups = [images.take(f"image {i}")[0] for i in range(300)]
    assert set(np.bincount(groups)) == {2, 3} and images.name == "images"
    unnamed = Units()
    assert [unnamed.take(None)[0] for _ in range(129)][-2:] == [127, 0]


def test_few_clips_are_drawn_by_blocks(label_set):
    rng = np.random.default_rng(2)
    rates = np.repeat(rng.beta(4, 2, 30), 8)  # neighbours resemble one another
    one_clip = accuracy(label_set, rates, rng, ["drive"] * 240)
    assert one_clip["interval_unit"] == "blocks of 8 images"
    unnamed = accuracy(label_set, rates, rng)
    assert unnamed["interval_unit"] == "images"
    key = "semantic.pixel_accuracy"
    assert np.diff(one_clip["intervals"][key]) > 1.8 * np.diff(unnamed["intervals"][key])
    drives = accuracy(label_set, rates, rng, np.arange(240) // 24)
    assert drives["interval_unit"] == "clips"
    few = accuracy(label_set, rates[::30], rng, ["drive"] * 8)
    assert few["interval_unit"] == "images" and few["intervals"]
    assert accuracy(label_set, [0.7], rng, ["drive"])["interval_unit"] is None


@pytest.mark.parametrize("cut", [16, 32, 40])
def test_blocks_of_merged_parts(cut):
    whole, parts = (Units(), BlockedSums()), [(Units(), BlockedSums()) for _ in range(2)]
    for i in range(64):
        for units, sums in (whole, parts[i >= cut]):
            sums.add(units.take("drive")[1], {"total": np.float64(2.0**i)})
    (units, sums), (others, more) = parts
    _, first = units.merge(others)
    for each in (sums, more):
        each.lengthen(units.block_length)
    sums.merge(more, np.arange(first, BLOCKS))
    assert units.images == 64 and units.block_length == 2
    assert np.array_equal(sums.sums["total"], whole[1].sums["total"])
