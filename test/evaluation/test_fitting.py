"""Temperature and variance scale recover what was put in, and minimise what they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.evaluation import DepthVarianceScaleFit, TemperatureFit


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def over_confident(temperature, seed=0, classes=6, size=(60, 80)):
    """Logits whose softmax, at the temperature, is the distribution the labels are drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (classes, *size)).astype(np.float32)
    levels = softmax(logits / temperature).cumsum(axis=0)
    labels = (rng.random(size) > levels[:-1]).sum(axis=0).astype(np.uint8)
    return logits, labels


def loss(logits, labels, temperature):
    probabilities = softmax(logits.astype(np.float64) / temperature)
    return -np.log(np.take_along_axis(probabilities, labels[None].astype(int), 0)).mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_the_temperature_is_recovered(temperature):
    logits, labels = over_confident(temperature)
    fit = TemperatureFit(pixels_per_image=None)
    fit.update(labels, logits=logits)
    assert fit.result() == pytest.approx(temperature, rel=0.05)
    assert fit.loss() == pytest.approx(loss(logits, labels, 1.0), rel=1e-5)


@given(st.floats(0.2, 8), st.integers(0, 1000))
@settings(max_examples=10)
def test_the_temperature_minimises_the_loss(temperature, seed):
    logits, labels = over_confident(temperature, seed, size=(20, 30))
    fit = TemperatureFit(pixels_per_image=None)
    fit.update(labels, logits=logits)
    found = fit.result()
    best = loss(logits, labels, found)
    for factor in (0.999, 1.001):
        assert loss(logits, labels, found * factor) > best


def test_probabilities_serve_as_logits():
    logits, labels = over_confident(2.0)
    from_logits, from_probabilities = TemperatureFit(None), TemperatureFit(None)
    from_logits.update(labels, logits=logits)
    from_probabilities.update(labels, probabilities=softmax(logits))
    assert from_probabilities.result() == pytest.approx(from_logits.result(), rel=1e-3)


def test_drawn_pixels_come_close_and_unlabelled_ones_do_not_count():
    fit = TemperatureFit(pixels_per_image=1000, seed=3)
    for seed in range(8):
        logits, labels = over_confident(1.6, seed)
        labels[:10] = 255
        logits[:, :10] *= 100
        fit.update(labels, logits=logits)
    assert fit.pixels == 8000
    assert fit.result() == pytest.approx(1.6, rel=0.05)


def test_merged_fits_equal_one():
    whole, parts = TemperatureFit(None), [TemperatureFit(None), TemperatureFit(None)]
    for seed in range(4):
        logits, labels = over_confident(1.3, seed, size=(10, 20))
        for fit in (whole, parts[seed % 2]):
            fit.update(labels, logits=logits)
    parts[0].merge(parts[1])
    assert parts[0].result() == pytest.approx(whole.result(), rel=1e-9)
    assert (parts[0].pixels, parts[0].images) == (whole.pixels, whole.images)


def test_a_perfect_or_hopeless_classifier_ends_at_the_range():
    logits, _ = over_confident(1.0, size=(10, 10))
    for labels, end in ((logits.argmax(axis=0), 1 / 16), (logits.argmin(axis=0), 16)):
        fit = TemperatureFit()
        fit.update(labels.astype(np.uint8), logits=logits)
        assert fit.result() == pytest.approx(end)


def test_a_balanced_temperature_gives_each_fit_the_same_weight():
    fits = []
    for seed, (temperature, size) in enumerate(((0.5, (20, 30)), (2.0, (60, 80)))):
        logits, labels = over_confident(temperature, seed, size=size)
        fits.append(TemperatureFit(None))
        fits[-1].update(labels, logits=logits)
    pair, reverse = TemperatureFit.balanced(fits), TemperatureFit.balanced(fits[::-1])
    assert fits[0].result() < pair.result() == reverse.result() < fits[1].result()
    assert pair.loss() == pytest.approx((fits[0].loss() + fits[1].loss()) / 2)
    with pytest.raises(ValueError, match="no labelled pixel"):
        TemperatureFit.balanced([fits[0], TemperatureFit()])


def test_temperature_errors():
    logits, labels = over_confident(1.0, size=(4, 5))
    fit = TemperatureFit()
    with pytest.raises(ValueError, match="no labelled pixel"):
        fit.result()
    with pytest.raises(ValueError, match="either"):
        fit.update(labels)
    with pytest.raises(ValueError, match="shape"):
        fit.update(labels[:2], logits=logits)
    with pytest.raises(ValueError, match="label 9 among 6"):
        fit.update(np.full_like(labels, 9), logits=logits)
    with pytest.raises(ValueError, match="at least 1"):
        TemperatureFit(0)


def gaussian_depth(seed, scale, size=(50, 60)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 20, size)
    variance = rng.gamma(2, 0.1, size)
    return truth + rng.normal(size=size) * np.sqrt(scale * variance), variance, truth


@pytest.mark.parametrize("scale", [0.25, 1.0, 9.0])
def test_the_scale_is_recovered_and_minimises_the_loss(scale):
    mean, variance, truth = gaussian_depth(0, scale)
    fit = DepthVarianceScaleFit((0.5, 80.0))
    fit.update(mean, variance, truth)
    found = fit.result()
    assert found == pytest.approx(scale, rel=0.1)

    def nll(s):
        return (np.log(s * variance) / 2 + (mean - truth) ** 2 / (2 * s * variance)).mean()

    assert nll(found) < min(nll(0.99 * found), nll(1.01 * found))


def test_pixels_without_truth_or_prediction_do_not_count():
    mean, variance, truth = gaussian_depth(1, 2.0)
    clean = DepthVarianceScaleFit((0.5, 80.0))
    clean.update(mean[10:], variance[10:], truth[10:])
    mean[:5], truth[5:10] = np.nan, 0
    fit = DepthVarianceScaleFit((0.5, 80.0))
    fit.update(mean, variance, truth)
    assert fit.result() == pytest.approx(clean.result())
    assert fit.pixels == clean.pixels


def test_merged_scales_and_errors():
    whole, parts = DepthVarianceScaleFit((0, 80)), [DepthVarianceScaleFit((0, 80)) for _ in "ab"]
    for seed in range(4):
        for fit in (whole, parts[seed % 2]):
            fit.update(*gaussian_depth(seed, 3.0))
    parts[0].merge(parts[1])
    assert parts[0].result() == pytest.approx(whole.result())
    with pytest.raises(ValueError, match="no pixel"):
        DepthVarianceScaleFit((0, 80)).result()
    with pytest.raises(ValueError, match="differ in shape"):
        whole.update(np.ones((2, 2)), np.ones((2, 2)), np.ones((3, 2)))
