"""The evaluator as a stream: order, merging, bounds, memory, missing and bad input."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from feeding import RANGE, fed
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.evaluation import Evaluator
from emu_perception.prediction import Prediction


@given(st.permutations(range(6)))
@settings(max_examples=10)
def test_the_order_of_frames_does_not_matter(label_set, frames, result, order):
    shuffled = fed(label_set, [frames[i] for i in order]).result(0)
    assert shuffled.scalars() == pytest.approx(result.scalars(), rel=1e-9)


@given(st.integers(0, 6), st.booleans())
@settings(max_examples=8)
def test_merged_parts_equal_the_whole(label_set, frames, result, cut, through_pickle):
    first, second = fed(label_set, frames[:cut]), fed(label_set, frames[cut:])
    if through_pickle:
        second = pickle.loads(pickle.dumps(second))
    first.merge(second)
    merged = first.result(replicates=50)
    assert merged.scalars() == pytest.approx(result.scalars(), rel=1e-9)
    for key, ends in result["intervals"].items():
        assert merged["intervals"][key] == pytest.approx(ends), key


def test_clips_stay_together_when_merging(label_set, frames):
    whole, parts = Evaluator(label_set, RANGE), [Evaluator(label_set, RANGE) for _ in range(2)]
    for i, (prediction, labels, depth) in enumerate(frames * 4):
        for evaluator in (whole, parts[i % 2]):
            evaluator.update(prediction, labels, depth, clip=f"clip {i // 2}")
    parts[0].merge(parts[1])
    assert whole.result(1)["interval_unit"] == "clips"
    merged, expected = (e.result(replicates=50)["intervals"] for e in (parts[0], whole))
    assert merged.keys() == expected.keys()
    for key in expected:
        assert merged[key] == pytest.approx(expected[key])


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_figures_keep_their_bounds(label_set, make_frame, seed):
    evaluator = fed(label_set, [make_frame(seed, 8, 12, void=0.3, invalid=0.3)])
    result = evaluator.result(0)
    for name in ("miou", "pixel_accuracy", "ece", "pavpu", "ece_classwise", "error_auroc"):
        assert result["semantic"][name] is None or 0 <= result["semantic"][name] <= 1, name
    depth = result["depth"]
    assert 0 <= depth["delta1"] <= depth["delta2"] <= depth["delta3"] <= depth["valid_fraction"]
    assert depth["mae"] <= depth["rmse"] + 1e-6
    assert depth["coverage_1sigma"] <= depth["coverage_2sigma"] <= 1
    assert result["semantic.ause"] >= -1e-9
    assert depth["ause"] >= -0.01 * depth["rmse"]
    json.dumps(result.values, allow_nan=False)


def test_memory_does_not_grow_with_the_number_of_frames(label_set, make_frame):
    """Ten frames already fill all the state there will ever be."""

    def size(evaluator):
        return len(pickle.dumps(evaluator, protocol=5))

    frames = [make_frame(seed, 8, 8) for seed in range(4)]
    few, many = Evaluator(label_set, RANGE), Evaluator(label_set, RANGE)
    for i in range(1000):
        prediction, labels, depth = frames[i % 4]
        for evaluator in (few, many) if i < 10 else (many,):
            evaluator.update(prediction, labels, depth, clip=i // 10, seconds=0.01)
    assert many.frames == 1000
    assert abs(size(many) - size(few)) < 1000
    assert size(many) < 16e6


def test_what_is_missing_is_none_and_explained(label_set, make_frame):
    prediction, labels, depth = make_frame(0, probabilities=False)
    bare = Prediction(labels=prediction.labels, depth=prediction.depth)
    result = fed(label_set, [(bare, labels, depth)]).result(0)
    assert result["semantic.nll"] is result["semantic.ece"] is result["depth.nll"] is None
    missing = result.values["missing"]
    assert missing["semantic.nll"] == "the predictions had no probabilities"
    assert missing["semantic.ause"] == "the predictions had no semantic_entropy"
    assert missing["depth.pavpu"] == "the predictions had no depth_variance"
    assert "out_of_distribution" in missing
    assert result["semantic.miou"] > 0 < result["depth.rmse"]

    result = fed(label_set, [(prediction, None, None)]).result(0)
    assert result["semantic"] is result["depth"] is result["depth.rmse"] is None
    assert set(result.values["missing"]) >= {"semantic", "depth", "seconds_per_frame"}
    assert 0 < result["mean_uncertainty.semantic"] < 1


def test_baselines_can_be_switched_off(label_set, frames):
    result = fed(label_set, frames, baselines=False).result(0)
    assert result["semantic.ause_boundary"] is result["depth.ause_boundary"] is None
    assert result["semantic.ause"] is not None
    assert result.values["missing"]["semantic.ause_boundary"] == "baselines were switched off"


def test_each_update_returns_the_frames_own_figures(label_set, frames):
    evaluator = Evaluator(label_set, RANGE)
    for prediction, labels, depth in frames:
        own = evaluator.update(prediction, labels, depth)
        alone = fed(label_set, [(prediction, labels, depth)]).result(0).scalars()
        for name, value in own.items():
            tolerance = 0.02 if name.endswith("ause") else 1e-9
            assert value == pytest.approx(alone[name], rel=tolerance, abs=1e-4), name
    assert "semantic.miou" in own
    assert "mean_uncertainty.depth" in own


def test_time_per_frame(label_set, frames):
    evaluator = Evaluator(label_set)
    for (prediction, labels, _), seconds in zip(frames, (0.1, None, 0.3)):
        evaluator.update(prediction, labels, seconds=seconds)
    assert evaluator.result(0)["seconds_per_frame"] == pytest.approx(0.2)


def test_labels_of_other_integer_types_and_strides(label_set, frames):
    prediction, labels, depth = frames[0]
    usual = fed(label_set, [frames[0]]).result(0).scalars()
    wide = np.asfortranarray(labels.astype(np.int64))
    strided = np.repeat(depth.astype(np.float64), 2, axis=1)[:, ::2]
    other = fed(label_set, [(prediction, wide, strided)]).result(0).scalars()
    assert other == pytest.approx(usual)


def test_bad_input_is_named_and_changes_nothing(label_set, frames):
    prediction, labels, depth = frames[0]
    evaluator = fed(label_set, frames[:2])
    before = evaluator.result(0).values
    with pytest.raises(ValueError, match="prediction is 24 x 32"):
        evaluator.update(prediction, labels[:-1])
    with pytest.raises(ValueError, match="true depth has shape"):
        evaluator.update(prediction, labels, depth[:, :5])
    with pytest.raises(ValueError, match="ground truth holds class ids 7"):
        evaluator.update(prediction, np.where(labels == 0, 7, labels))
    with pytest.raises(ValueError, match="prediction holds class ids 5"):
        evaluator.update(replace(prediction, labels=np.full_like(labels, 5)), labels)
    with pytest.raises(ValueError, match="integers from 0 to 255"):
        evaluator.update(prediction, labels.astype(np.int16) - 300)
    with pytest.raises(ValueError, match="mask has shape"):
        evaluator.update(prediction, labels, out_of_distribution=labels[:3])
    assert evaluator.result(0).values == before


def test_settings_that_make_no_sense(label_set):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        Evaluator()
    with pytest.raises(ValueError, match="depth range"):
        Evaluator(depth_range=(5.0, 1.0))
    with pytest.raises(ValueError, match="different settings"):
        Evaluator(label_set).merge(Evaluator(label_set, RANGE))
