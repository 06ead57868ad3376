"""Photometric augmentation: the teacher's colour jitter, and an optional one for students."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision's ColorJitter


@dataclass(frozen=True)
class ColourJitter:
    """Strengths of a colour jitter: factors are drawn from [1 - x, 1 + x], hue shifts from [-x, x].

    0.2 each is the teacher's in the EMUFormer paper; a hue shift of 1 is the whole colour circle.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.2

    def __post_init__(self) -> None:
        if min(self.brightness, self.contrast, self.saturation) < 0:
            raise ValueError(f"jitter strengths must not be negative: {self}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must be in [0, 0.5], got {self.hue}")

    def draw(self, seeds: Iterable[int]) -> torch.Tensor:
        """One draw per image, `(B, 4)` float32: brightness, contrast, saturation, hue.

        A function of the seeds alone (`Batch["seed"]`), so that all members of a teacher, and a
        resumed run, see the same picture.
        """
        strengths = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        centre = np.array([1.0, 1.0, 1.0, 0.0])
        low = np.maximum(centre - strengths, [0, 0, 0, -0.5])
        draws = [
            np.random.default_rng(int(seed)).uniform(low, centre + strengths) for seed in seeds
        ]
        return torch.from_numpy(np.asarray(draws, np.float32).reshape(-1, 4))


def colour_jitter(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Apply brightness, contrast, saturation and hue, in this order, to a batch.

    Args:
        images: `(B, 3, H, W)` float, RGB in [0, 1].
        factors: `(B, 4)`, as `ColourJitter.draw` gives them.

    Returns:
        `(B, 3, H, W)`, in [0, 1], same type and device.
    """
    brightness, contrast, saturation, hue = factors.to(images)[:, :, None, None, None].unbind(
        dim=1
    )  # each (B, 1, 1, 1)
    luma = images.new_tensor(_LUMA)[None, :, None, None]
    images = (images * brightness).clamp(0, 1)
    mean = (images * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp(0, 1)
    grey = (images * luma).sum(dim=1, keepdim=True)
    images = torch.lerp(grey, images, saturation).clamp(0, 1)
    return _shift_hue(images, hue)


def _shift_hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue (HSV) by `shift` (B, 1, 1, 1), in turns."""
    value, brightest = images.max(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    divisor = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    red, green, blue = images.split(1, dim=1)
    sector = torch.cat([green - blue, blue - red, red - green], dim=1)
    hue = sector.gather(1, brightest) / divisor + 2 * brightest  # in sixths of a turn
    # Each channel is value − chroma · clamp(min(k, 4 − k), 0, 1), k its distance along the circle.
    start = images.new_tensor([5.0, 3.0, 1.0])[None, :, None, None]
    k = (start + hue + 6 * shift) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


@dataclass(frozen=True)
class Photometric:
    """Photometric augmentation of one image: strong enough to carry rendered images to real
    ones."""

    jitter: ColourJitter = ColourJitter()
    gamma: float = 0.0
    """The exponent is drawn log-uniformly from [1 / (1 + gamma), 1 + gamma]."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur, pixels."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian pixel noise, in 0–255."""
    probability: float = 1.0
    """Fraction of the images that are changed."""

    def __post_init__(self) -> None:
        if min(self.gamma, self.blur, self.noise) < 0:
            raise ValueError(f"gamma, blur and noise must not be negative: {self}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {self.probability}")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change an `(H, W, 3)` uint8 RGB image; all that is random comes from `rng`."""
        apply = rng.random() < self.probability
        seed = int(rng.integers(2**63))
        exponent = (1 + self.gamma) ** rng.uniform(-1, 1)
        blur, noise = rng.uniform(0, self.blur), rng.uniform(0, self.noise)
        if not apply:
            return image
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
        pixels = colour_jitter(pixels, self.jitter.draw([seed])).pow(exponent)
        out = pixels[0].permute(1, 2, 0).mul(255).contiguous().numpy()
        if blur > 0.1:  # a narrower Gaussian changes nothing
            out = cv2.GaussianBlur(out, (0, 0), blur)
        if noise > 0:
            out = out + np.float32(noise) * rng.standard_normal(out.shape, np.float32)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)
