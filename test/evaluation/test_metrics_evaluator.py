"""The evaluator against definitions written naively, over whole sets of random images."""

import json
from dataclasses import replace

import naive_metrics as naive
import numpy as np
import pytest
from feeding import RANGE, fed

from emu_perception.evaluation import Evaluator, boundary
from emu_perception.labels import load_label_set


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
            "entropy": prediction.semantic_entropy[kept],
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
        semantic.append(naive.pavpu(prediction.semantic_entropy[kept], correct))
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
        semantic.append(naive.pavpu(prediction.semantic_entropy, accurate))
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
    scores = {"semantic_entropy": [], "depth_variance": [], "confidence": []}
    masks = []
    for seed in range(4):
        prediction, *_ = make_frame(seed)
        rng = np.random.default_rng(seed)
        odd = rng.random(prediction.size) < 0.2 + 0.3 * prediction.semantic_entropy
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


def test_depth_of_classes_is_that_at_pixels_predicted_as_one_of_them(label_set, frames):
    names = label_set.names[1:3]
    values = fed(label_set, frames, depth_classes=names).result(20)
    errors, ratios, within = [], [], []
    for prediction, _, depth in frames:
        chosen = np.isin(prediction.labels, (1, 2)) & (depth > RANGE[0]) & (depth < RANGE[1])
        y = depth[chosen].astype(float)
        mean = prediction.depth[chosen].astype(float)
        valid = np.isfinite(mean)
        ratio = np.where(valid, np.maximum(mean / y, y / mean), np.inf)
        ratios.append(ratio)
        errors.append((np.abs(mean - y) / y)[valid])
        deviation = np.sqrt(prediction.depth_variance[chosen][valid])
        within.append(np.abs(mean - y)[valid] <= deviation)
    found = values["depth_of_classes"]
    assert found["pixels"] == len(np.concatenate(errors)) < values["depth.pixels"]
    assert found["absrel"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)
    assert found["delta1"] == pytest.approx((np.concatenate(ratios) < 1.25).mean(), rel=1e-5)
    assert found["coverage_1sigma"] == pytest.approx(np.concatenate(within).mean(), abs=1e-3)
    low, high = values["intervals"]["depth_of_classes.absrel"]
    assert low <= found["absrel"] <= high
    assert values["settings.depth_classes"] == list(names)


def test_classes_of_depth_are_the_vehicles_unless_others_are_named(label_set):
    streets = load_label_set("cityscapes")
    assert Evaluator(streets, RANGE).depth_classes == ("car", "truck", "bus")
    assert Evaluator(load_label_set("nyuv2_13"), RANGE).depth_classes == ()
    assert Evaluator(None, RANGE).depth_classes == ()
    with pytest.raises(ValueError, match="there is no class van; there are road"):
        Evaluator(streets, RANGE, depth_classes=["van", "car"])


def test_the_domain_distance_of_images(label_set, frames):
    evaluator = Evaluator(label_set, RANGE)
    for distance, (prediction, labels, _) in zip((0.5, 1.5, 4.0), frames):
        seen = evaluator.update(replace(prediction, domain_distance=distance), labels)
        assert seen["domain.mean_distance"] == distance
    found = evaluator.result(0)
    assert found["domain.mean_distance"] == 2.0
    assert found["domain.above_threshold"] == pytest.approx(2 / 3)
    without = fed(label_set, frames[:1]).result(0)
    assert without["domain"] is None and "training domain" in without.values["missing"]["domain"]
