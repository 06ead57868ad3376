"""From radiance to the bytes of a cheap camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sensor:
    """Effects of a camera on an image; see `expose`."""

    brightness: float
    """Target for the median of what is not sky, 0–1 after the tone curve."""
    gamma: float
    contrast: float
    white_balance: tuple[float, float, float]
    saturation: float
    vignette: float
    blur: float
    """Standard deviation of defocus, pixels."""
    motion: float
    """Length of motion blur, pixels, radial from the image's centre."""
    noise: float
    jpeg: int
    """Quality, 0: not compressed."""
    veil: float
    """Scattered light added everywhere."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Sensor:
        wb = rng.normal(0, 0.05, 3)
        return cls(
            brightness=float(np.clip(rng.normal(0.34, 0.09), 0.14, 0.6)),
            gamma=float(rng.uniform(1.9, 2.4)),
            contrast=float(rng.uniform(0.0, 0.6)),
            white_balance=tuple(np.exp(wb - wb.mean())),
            saturation=float(np.clip(rng.normal(0.85, 0.2), 0.2, 1.4)),
            vignette=float(rng.uniform(0, 0.4)),
            blur=float(rng.uniform(0.45, 0.75) if rng.random() < 0.85 else rng.uniform(0.8, 1.5)),
            motion=float(rng.exponential(1.2) if rng.random() < 0.4 else 0.0),
            noise=float(rng.uniform(0.002, 0.02)),
            jpeg=int(rng.integers(55, 96)) if rng.random() < 0.5 else 0,
            veil=float(rng.exponential(0.008)),
        )


def _blur(image: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(2.5 * sigma))
    x = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    image = F.pad(image, (reach, reach, 0, 0), mode="replicate")
    image = F.conv2d(image, kernel[:, :, None, :], groups=3)
    image = F.pad(image, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(image, kernel[:, :, :, None], groups=3)


def expose(
    radiance: Tensor,
    sky: Tensor,
    sensor: Sensor,
    generator: torch.Generator,
    gain: float | None = None,
) -> np.ndarray:
    """`(H, W, 3)` uint8 from linear radiance `(H, W, 3)`; `sky` `(H, W)` marks the sky.

    `gain` fixes the exposure; otherwise it is metered on what is not sky.
    """
    height, width = radiance.shape[:2]
    device = radiance.device
    if gain is None:
        gain = meter(radiance, sky, sensor)
    image = radiance.permute(2, 0, 1)[None] * gain + sensor.veil
    image = (
        image
        * torch.tensor(sensor.white_balance, device=device, dtype=torch.float32)[:, None, None]
    )
    y = torch.linspace(-1, 1, height, device=device)[:, None] * (height / width)
    x = torch.linspace(-1, 1, width, device=device)[None]
    radius = (x * x + y * y) / (1 + (height / width) ** 2)
    image = (image * (1 - sensor.vignette * radius)).clamp(0, 6)
    if sensor.motion > 0.3:
        total = image
        grid = torch.stack(
            [
                x.expand(height, width),
                torch.linspace(-1, 1, height, device=device)[:, None].expand(height, width),
            ],
            -1,
        )
        for step in range(1, 4):
            zoomed = grid * (1 - sensor.motion * step / (2 * width))
            total = total + F.grid_sample(
                image, zoomed[None], align_corners=True, padding_mode="border"
            )
        image = total / 4
    if sensor.blur > 0:
        image = _blur(image, sensor.blur)
    spread = sensor.noise * (0.25 + image.sqrt())
    grain = torch.randn(image.shape, generator=generator).to(device)
    image = (image + 0.4 * spread * grain).clamp(0)
    grey = image.mean(1, keepdim=True)
    image = (grey + (image - grey) * sensor.saturation).clamp(0, 1)
    image = image ** (1 / sensor.gamma)
    image = image + sensor.contrast * image * (1 - image) * (2 * image - 1)
    array = (image[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
    if sensor.jpeg:
        ok, data = cv2.imencode(".jpg", array[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg])
        assert ok
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        array = decoded[..., ::-1]
    return np.ascontiguousarray(array)


def meter(radiance: Tensor, sky: Tensor, sensor: Sensor) -> float:
    """The gain that brings the median of what is not sky to the sensor's brightness.

    A bright sky holds the gain back, as it does in real cameras.
    """
    light = radiance.mean(2)
    ground = light[~sky]
    median = float((ground if ground.numel() > 100 else light.flatten()).median())
    overall = float(light.clamp(max=2.0).mean())
    return sensor.brightness**sensor.gamma / max(median, 0.22 * overall, 1e-4)
