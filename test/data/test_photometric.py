"""Colour jitter: as torchvision's, but one draw per image in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from emu_perception.data.photometric import (
    ColourJitter,
    Photometric,
    colour_jitter,
)

IMAGES = torch.rand(3, 3, 10, 12, generator=torch.Generator().manual_seed(0))


def test_as_torchvision() -> None:
    factors = torch.tensor(
        [[0.8, 1.2, 1.1, 0.2], [1.2, 0.85, 0.8, -0.13], [1.0, 1.0, 1.0, 0.5]], dtype=torch.float32
    )
    found = colour_jitter(IMAGES, factors)
    for image, (brightness, contrast, saturation, hue), jittered in zip(
        IMAGES, factors.tolist(), found
    ):
        expected = functional.adjust_brightness(image, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = functional.adjust_saturation(expected, saturation)
        expected = functional.adjust_hue(expected, hue)
        torch.testing.assert_close(jittered, expected, atol=1e-3, rtol=0)


def test_neutral_factors_change_nothing() -> None:
    images = torch.cat([IMAGES, torch.full((1, 3, 10, 12), 0.5)])  # grey has no hue
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(4, 4)
    torch.testing.assert_close(colour_jitter(images, neutral), images, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        colour_jitter(images, torch.tensor([[1.0, 1, 1, 1]] * 4)), images, atol=1e-5, rtol=0
    )  # a full turn


def test_one_draw_per_image_a_function_of_its_seed() -> None:
    jitter = ColourJitter()
    factors = jitter.draw([7, 8, 7])
    assert factors.shape == (3, 4)
    assert torch.equal(factors[0], factors[2])
    assert not torch.equal(factors[0], factors[1])
    # The same image gets the same colours wherever it is in a batch.
    batch = IMAGES[:1].expand(3, -1, -1, -1)
    found = colour_jitter(batch, factors)
    assert torch.equal(found[0], found[2])
    many = jitter.draw(torch.arange(2000)).numpy()
    np.testing.assert_allclose(many.mean(axis=0), [1, 1, 1, 0], atol=0.02)
    assert (many.min(axis=0) >= [0.8, 0.8, 0.8, -0.2]).all()
    assert (many.max(axis=0) <= [1.2, 1.2, 1.2, 0.2]).all()
    assert (np.ptp(many, axis=0) > 0.38).all()


def test_strengths_are_checked() -> None:
    with pytest.raises(ValueError, match="hue"):
        ColourJitter(hue=0.6)
    with pytest.raises(ValueError, match="negative"):
        ColourJitter(contrast=-0.1)
    with pytest.raises(ValueError, match="probability"):
        Photometric(probability=2)
    with pytest.raises(ValueError, match="negative"):
        Photometric(noise=-1)


def test_photometric() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    nothing = Photometric(ColourJitter(0, 0, 0, 0))
    np.testing.assert_array_equal(nothing(image, np.random.default_rng(1)), image)
    never = Photometric(noise=50, probability=0)
    np.testing.assert_array_equal(never(image, np.random.default_rng(1)), image)
    blurred = Photometric(ColourJitter(0, 0, 0, 0), blur=3)(image, np.random.default_rng(1))
    assert blurred.std() < 0.8 * image.std()
    grey = np.full((40, 40, 3), 128, np.uint8)
    noisy = Photometric(ColourJitter(0, 0, 0, 0), noise=10)(grey, np.random.default_rng(3))
    assert 0.5 < noisy.std() < 10
    darker = [
        Photometric(ColourJitter(0, 0, 0, 0), gamma=1)(grey, np.random.default_rng(i)).mean()
        for i in range(20)
    ]
    assert 255 * 0.5**2 - 2 < min(darker) < 110
    assert 150 < max(darker) < 255 * 0.5**0.5 + 2
