"""The evaluator against definitions written naively, over whole sets of random images."""

import json
import pickle
from dataclasses import replace

import naive_metrics as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.evaluation import Evaluator, boundary
from emu_perception.prediction import Prediction

RANGE = (0.5, 80.0)


def fed(label_set, frames, **options):
    evaluator = Evaluator(label_set, RANGE, **options)
    for prediction, labels, depth in frames:
        evaluator.update(prediction, labels, depth)
    return evaluator


@pytest.fixture(scope="module")
def frames(make_frame):
    return [make_frame(seed, invalid=0.05) for seed in range(6)]


@pytest.fixture(scope="module")
def result(label_set, frames):
    return fed(label_set, frames).result(replicates=50)


@pytest.fixture(scope="module")
def pixels(frames):
    """All labelled pixels, and all with a true and a predicted depth, end to end."""
    parts = {}
    for prediction, labels, depth in frames:
        kept, valid = labels != 255, (depth > 0) & np.isfinite(prediction.depth)
        for name, value in {
            "truth": labels[kept],
            "labels": prediction.labels[kept],
            "confidence": prediction.confidence[kept],
            "entropy": prediction.semantic_uncertainty[kept],
            "probabilities": prediction.probabilities[:, kept].T,
            "seen_depth": np.nan_to_num(prediction.depth[kept], nan=1e9),
            "seen_proximity": boundary.boundary_proximity(prediction.labels)[kept],
            "y": depth[valid],
            "mean": prediction.depth[valid],
            "variance": prediction.depth_variance[valid],
            "proximity": boundary.boundary_proximity(prediction.labels)[valid],
        }.items():
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in parts.items()}


def test_semantic_figures(result, pixels):
    values, truth, predicted = result["semantic"], pixels["truth"], pixels["labels"]
    correct = truth == predicted
    of_truth = pixels["probabilities"][np.arange(len(truth)), truth]
    one_hot = np.eye(5)[truth]
    expected = {
        "pixels": len(truth),
        "miou": naive.miou(truth, predicted, 5),
        "pixel_accuracy": correct.mean(),
        "class_accuracy": np.mean([correct[truth == c].mean() for c in range(5)]),
        "nll": -np.log(of_truth).mean(),
        "brier": ((pixels["probabilities"] - one_hot) ** 2).sum(axis=1).mean(),
        "ece": naive.ece(pixels["confidence"], correct),
        "ece_classwise": naive.classwise_ece(pixels["probabilities"].T, truth),
        "ece_top_label": sum(
            (predicted == c).mean()
            * naive.ece(pixels["confidence"][predicted == c], correct[predicted == c])
            for c in range(5)
        ),
        "mean_confidence": pixels["confidence"].mean(),
        "error_auroc": naive.auroc(pixels["entropy"], ~correct),
        "aurc": naive.risk_area(pixels["entropy"], ~correct),
        "ause": naive.ause(pixels["entropy"], ~correct),
        "ause_predicted_depth": naive.ause(pixels["seen_depth"], ~correct),
    }
    for name, value in expected.items():
        tolerance = 1e-3 if "au" in name else 1e-5
        assert values[name] == pytest.approx(value, abs=tolerance), name
    exact = naive.equal_mass_ece(pixels["confidence"], correct)
    assert values["ece_equal_mass"] == pytest.approx(exact, abs=2e-3)
    weights = [point["fraction"] for point in values["reliability"]]
    gaps = [abs(point["confidence"] - point["accuracy"]) for point in values["reliability"]]
    assert np.dot(weights, gaps) == pytest.approx(values["ece"])


def test_depth_figures(result, pixels):
    values, y, mean, variance = (
        result["depth"],
        *(pixels[k].astype(float) for k in ("y", "mean", "variance")),
    )
    error, ratio = mean - y, np.maximum(mean / y, y / mean)
    known = values["pixels"] / values["valid_fraction"]
    expected = {
        "pixels": len(y),
        "rmse": np.sqrt((error**2).mean()),
        "mae": abs(error).mean(),
        "absrel": (abs(error) / y).mean(),
        "sqrel": (error**2 / y).mean(),
        "log10": abs(np.log10(mean / y)).mean(),
        "delta1": (ratio < 1.25).sum() / known,
        "delta2": (ratio < 1.25**2).sum() / known,
        "delta3": (ratio < 1.25**3).sum() / known,
        "nll": (np.log(variance) / 2 + error**2 / variance / 2).mean(),
        "coverage_1sigma": (error**2 <= variance).mean(),
        "coverage_2sigma": (error**2 <= 4 * variance).mean(),
        "mean_normalized_squared_error": (error**2 / variance).mean(),
        "error_auroc": naive.auroc(variance, ratio >= 1.25),
        "aurc": naive.risk_area(variance, ratio >= 1.25),
        "ause": naive.ause(variance, error**2, np.sqrt),
        "ause_predicted_depth": naive.ause(mean, error**2, np.sqrt),
    }
    for name, value in expected.items():
        relative = 2e-3 if "au" in name else 1e-5
        assert values[name] == pytest.approx(value, rel=relative, abs=1e-5), name


def test_averages_over_images(result, frames):
    semantic, depth, rmse, silog, ious = [], [], [], [], []
    for prediction, labels, truth in frames:
        kept = labels != 255
        correct = prediction.labels[kept] == labels[kept]
        semantic.append(naive.pavpu(prediction.semantic_uncertainty[kept], correct))
        ious.append(naive.miou(labels[kept], prediction.labels[kept], 5))
        known = truth > 0
        mean, variance = prediction.depth[known], prediction.depth_variance[known]
        ratio = np.maximum(mean / truth[known], truth[known] / mean)
        # A NaN is inaccurate and uncertain, whatever the threshold.
        certain = variance < np.nanmean(variance)
        depth.append(naive.pavpu_from(certain, ratio < 1.25))
        valid = np.isfinite(mean)
        rmse.append(np.sqrt(((mean - truth[known])[valid] ** 2).mean()))
        silog.append(100 * np.std(np.log(mean[valid] / truth[known][valid])))
    names = ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")
    assert [result["semantic"][n] for n in names] == pytest.approx(np.mean(semantic, axis=0))
    assert [result["depth"][n] for n in names] == pytest.approx(np.mean(depth, axis=0))
    assert result["semantic.miou_image_mean"] == pytest.approx(np.mean(ious))
    assert result["depth.rmse_image_mean"] == pytest.approx(np.mean(rmse), rel=1e-5)
    assert result["depth.silog"] == pytest.approx(np.mean(silog), rel=1e-4)


def test_sweep_has_one_threshold_for_the_set(result, pixels):
    correct = pixels["truth"] == pixels["labels"]
    entropy = pixels["entropy"]
    for point in result["semantic"]["sweep"]:
        threshold = np.quantile(entropy, point["coverage"])
        assert point["threshold"] * np.log(5) == pytest.approx(threshold, rel=0.01)
        expected = naive.pavpu(entropy, correct, threshold)
        measured = [point[n] for n in ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")]
        assert measured == pytest.approx(expected, abs=5e-3)


def test_calibration_near_to_and_far_from_boundaries(label_set, make_frame):
    prediction, labels, _ = make_frame(3, void=0)
    result = Evaluator(label_set, boundary_width=0.0)
    result.update(prediction, labels)
    near = np.zeros(labels.shape, bool)
    padded = np.pad(labels, 1, mode="edge")
    for i in range(3):
        for j in range(3):
            near |= padded[i : i + labels.shape[0], j : j + labels.shape[1]] != labels
    correct = prediction.labels == labels
    values = result.result(0)["semantic"]
    for name, part in (("ece_boundary", near), ("ece_interior", ~near)):
        expected = naive.ece(prediction.confidence[part], correct[part])
        assert values[name] == pytest.approx(expected, abs=1e-6)


def test_depth_calibration_by_octave_of_the_predicted_depth(result, pixels):
    mean, error = pixels["mean"], (pixels["mean"] - pixels["y"]).astype(float)
    rows = result["depth"]["by_distance"]
    assert sum(row["fraction"] for row in rows) == pytest.approx(1)
    for row in rows:
        inside = (mean >= row["from"]) & (mean < row["to"])
        variance = pixels["variance"][inside]
        assert row["fraction"] == pytest.approx(inside.mean())
        assert row["rmse"] == pytest.approx(np.sqrt((error[inside] ** 2).mean()), rel=1e-5)
        assert row["predicted_std"] == pytest.approx(np.sqrt(variance.mean()), rel=1e-5)
        within = (error[inside] ** 2 <= variance).mean()
        assert row["coverage_1sigma"] == pytest.approx(within)


def test_depth_reliability_follows_the_true_noise(label_set, make_frame):
    values = fed(label_set, [make_frame(seed, 96, 128) for seed in range(4)]).result(0)["depth"]
    assert values["mean_normalized_squared_error"] == pytest.approx(1, abs=0.05)
    assert values["ence"] < 0.15
    deviations = [point["predicted_std"] for point in values["reliability"]]
    assert deviations == sorted(deviations)


def test_sparsification_curves_drop_the_most_uncertain_pixels(result, pixels):
    wrong = pixels["truth"] != pixels["labels"]
    squared = (pixels["mean"] - pixels["y"]).astype(float) ** 2
    for task, score, errors, measure in (
        ("semantic", pixels["entropy"], wrong, lambda x: x),
        ("depth", pixels["variance"], squared, np.sqrt),
    ):
        curves = result[task]["sparsification"]
        for removed, error in zip(curves["fraction_removed"], curves["uncertainty"]):
            kept = np.argsort(score)[: round((1 - removed) * len(score))]
            assert error == pytest.approx(measure(errors[kept].mean()), rel=0.02, abs=2e-3)


def test_sparsification_curves_start_together_and_the_oracle_is_lowest(result):
    for task in ("semantic", "depth"):
        curves = result[task]["sparsification"]
        names = set(curves) - {"fraction_removed"}
        assert names == {"uncertainty", "oracle", "random", "predicted_depth", "boundary"}
        starts = [curves[name][0] for name in names]
        assert starts == pytest.approx([starts[0]] * len(starts))
        for name in names:
            assert np.array(curves["oracle"]) == pytest.approx(
                np.minimum(curves["oracle"], curves[name]), rel=1e-2
            )
        assert 0 < result[task]["ause"] < result[task]["ause_random"]


def test_void_as_inaccurate(label_set, frames):
    values = fed(label_set, frames, void_as_inaccurate=True).result(0)
    names = ("p_accurate_certain", "p_uncertain_inaccurate", "pavpu")
    semantic, depth = [], []
    for prediction, labels, truth in frames:
        accurate = prediction.labels == labels
        semantic.append(naive.pavpu(prediction.semantic_uncertainty, accurate))
        variance = prediction.depth_variance
        with np.errstate(divide="ignore"):
            ratio = np.maximum(prediction.depth / truth, truth / prediction.depth)
        depth.append(naive.pavpu_from(variance < np.nanmean(variance), ratio < 1.25))
    assert [values["semantic"][n] for n in names] == pytest.approx(np.mean(semantic, axis=0))
    assert [values["depth"][n] for n in names] == pytest.approx(np.mean(depth, axis=0))
    strict, usual = values, fed(label_set, frames).result(0)
    assert strict["semantic.pixel_accuracy"] == usual["semantic.pixel_accuracy"]
    assert strict["semantic.ause"] == usual["semantic.ause"]
    measure = "at_80_percent_coverage"
    for task in ("semantic", "depth"):
        assert strict[task][measure]["pavpu"] < usual[task][measure]["pavpu"]


def test_invalid_depth_counts_as_inaccurate_but_has_no_error(label_set, make_frame):
    prediction, _, depth = make_frame(1, void=0)
    holes = np.random.default_rng(0).random(depth.shape) < 0.3
    punched = replace(
        prediction,
        depth=np.where(holes, np.nan, prediction.depth).astype(np.float32),
        depth_variance=np.where(holes, np.nan, prediction.depth_variance).astype(np.float32),
    )
    whole = fed(label_set, [(punched, None, depth)]).result(0)["depth"]
    rest = fed(label_set, [(punched, None, np.where(holes, 0, depth))]).result(0)["depth"]
    assert whole["valid_fraction"] == pytest.approx(1 - holes.mean())
    assert whole["delta1"] == pytest.approx(rest["delta1"] * (1 - holes.mean()))
    assert whole["p_uncertain_inaccurate"] > rest["p_uncertain_inaccurate"]
    # At any coverage the holes lie above the threshold, and they are most of the inaccurate pixels.
    point = whole["sweep"][9]
    assert point["coverage"] == 0.5
    accurate = point["p_accurate_certain"]
    inaccurate = 1 - whole["delta1"]
    assert point["p_uncertain_inaccurate"] == pytest.approx(1 - 0.5 * (1 - accurate) / inaccurate)
    for name in ("rmse", "absrel", "nll", "coverage_1sigma", "ause", "error_auroc", "aurc"):
        assert whole[name] == rest[name], name


def test_a_frame_of_nothing_but_invalid_depth(label_set, make_frame):
    prediction, labels, depth = make_frame(1)
    nothing = np.full_like(depth, np.nan)
    blind = replace(prediction, depth=nothing, depth_variance=nothing)
    result = fed(label_set, [(blind, labels, depth)]).result(0)
    assert result["depth.valid_fraction"] == result["depth.delta1"] == 0
    assert result["depth.rmse"] is result["depth.ause"] is None
    assert result["depth.p_uncertain_inaccurate"] == 1
    json.dumps(result.values, allow_nan=False)
    unlabelled = np.full_like(labels, 255)
    result = fed(label_set, [(prediction, unlabelled, np.zeros_like(depth))]).result(0)
    assert result["semantic.miou"] is result["semantic.ece"] is result["depth.absrel"] is None
    assert result.values["missing"]["semantic.miou"] == "no pixel to judge it by"


def test_out_of_distribution_scores(label_set, make_frame):
    evaluator = Evaluator(label_set, RANGE)
    scores = {"semantic_uncertainty": [], "depth_variance": [], "confidence": []}
    masks = []
    for seed in range(4):
        prediction, *_ = make_frame(seed)
        rng = np.random.default_rng(seed)
        odd = rng.random(prediction.size) < 0.2 + 0.3 * prediction.semantic_uncertainty
        mask = np.where(rng.random(odd.shape) < 0.1, 255, odd).astype(np.uint8)
        evaluator.update(prediction, out_of_distribution=mask)
        masks.append(odd[mask != 255])
        for name in scores:
            values = getattr(prediction, name)[mask != 255]
            scores[name].append(1 - values if name == "confidence" else values)
    odd = np.concatenate(masks)
    result = evaluator.result()["out_of_distribution"]
    assert set(result) == set(scores)
    for name, parts in scores.items():
        score = np.concatenate(parts)
        assert result[name]["auroc"] == pytest.approx(naive.auroc(score, odd), abs=1e-3)
        assert result[name]["fpr95"] == pytest.approx(naive.fpr95(score, odd), abs=5e-3)
        precision = naive.average_precision(score, odd)
        assert result[name]["average_precision"] == pytest.approx(precision, abs=2e-3)
        assert result[name]["fraction"] == pytest.approx(odd.mean())


@given(st.permutations(range(6)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_frames_does_not_matter(label_set, frames, result, order):
    shuffled = fed(label_set, [frames[i] for i in order]).result(0)
    assert shuffled.scalars() == pytest.approx(result.scalars(), rel=1e-9)


@given(st.integers(0, 6), st.booleans())
@settings(max_examples=8, deadline=None)
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
    for i, (prediction, labels, depth) in enumerate(frames):
        for evaluator in (whole, parts[i % 2]):
            evaluator.update(prediction, labels, depth, clip=f"clip {i // 2}")
    parts[0].merge(parts[1])
    merged, expected = (e.result(replicates=50)["intervals"] for e in (parts[0], whole))
    assert merged.keys() == expected.keys()
    for key in expected:
        assert merged[key] == pytest.approx(expected[key])


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
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
    assert missing["semantic.ause"] == "the predictions had no semantic_uncertainty"
    assert missing["depth.pavpu"] == "the predictions had no depth_variance"
    assert "out_of_distribution" in missing
    assert result["semantic.miou"] > 0 < result["depth.rmse"]

    result = fed(label_set, [(prediction, None, None)]).result(0)
    assert result["semantic"] is result["depth"] is result["depth.rmse"] is None
    assert set(result.values["missing"]) >= {"semantic", "depth", "seconds_per_frame"}
    assert 0 < result["mean_uncertainty.semantic"] < 1


def test_rivals_can_be_switched_off(label_set, frames):
    result = fed(label_set, frames, rivals=False).result(0)
    assert result["semantic.ause_boundary"] is result["depth.ause_boundary"] is None
    assert result["semantic.ause"] is not None
    assert result.values["missing"]["semantic.ause_boundary"] == "rivals were switched off"


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
