"""A training run small enough for a test: both tasks, in the folder layout of NYUv2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emu_perception.training.config import TrainConfig

ARGUMENTS = {"width": 8, "dropout": 0.1, "drop_path": 0.1}


def write_data(root: Path, count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("rgb", "depth_mm", "label13"):
        (root / folder).mkdir(parents=True)
    for number in range(1, count + 1):
        name = f"{number:04d}.png"
        depth = cv2.resize(rng.uniform(1000, 9000, (3, 4)), (96, 72)).astype(np.uint16)
        labels = (1 + depth // 800).astype(np.uint8)
        image = np.stack([depth // 40, 255 - depth // 40, labels * 20], axis=2).astype(np.uint8)
        image += rng.integers(0, 20, image.shape, np.uint8)
        for folder, array in (("rgb", image), ("depth_mm", depth), ("label13", labels)):
            assert cv2.imwrite(str(root / folder / name), array)
    return root


def values(data: Path, out: Path, /, **changes: Any) -> dict[str, Any]:
    split = {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}}
    found: dict[str, Any] = {
        "output": str(out),
        "model": {
            "backbone": "mit_b0",
            "arguments": ARGUMENTS,
            "input_size": [64, 96],
            "depth_range": [0.001, 10.0],
            "initial_depth": 4.0,
        },
        "data": {
            "train": [split],
            "crop": [32, 64],
            "augmentation": {"scale_changes": "nothing"},
            "batch_size": 2,
            "workers": 0,
        },
        "optimizer": {"learning_rate": 1e-3},
        "trainer": {"epochs": 2, "accelerator": "cpu", "devices": 1, "log_every": 1},
    }
    for group, change in changes.items():
        found[group] = {**found.get(group, {}), **change} if isinstance(change, dict) else change
    return found


def config(data: Path, out: Path, /, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(values(data, out, **changes))


def study_values(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Values of a study of two seeds on such data, with one row."""
    base = values(data, out, trainer={"epochs": 1})
    del base["output"]
    split = base["data"]["train"][0]
    return {
        "output": str(out),
        "seeds": [0, 1],
        "base": base,
        "tests": {"test": split},
        "calibration": {**split, "split": "train"},
        "columns": {"mIoU": "test.semantic.miou", "AbsRel": "test.depth.absrel"},
        "rows": [{"name": "baseline"}],
        **changes,
    }
