"""Cost of a teacher: time and memory of a training step with and without it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from emu_perception.allocator import keep_freed_memory
from emu_perception.benchmark.limits import Limit
from emu_perception.benchmark.measure import peak_resident_bytes
from emu_perception.camera import Intrinsics
from emu_perception.data import Batch, collate
from emu_perception.data.photometric import ColourJitter
from emu_perception.data.sample import Sample
from emu_perception.inference.model_file import LoadedModel
from emu_perception.labels import load_label_set
from emu_perception.training.config import TrainConfig
from emu_perception.training.distillation import DistillationModule
from emu_perception.training.modules import SupervisedModule, fuses_optimizer
from emu_perception.training.run import build_network, describe_model
from emu_perception.training.targets import Teacher

LIMIT = 3.0
"""Plain steps that a step with a teacher of ten may take."""


@dataclass(frozen=True)
class StepCost:
    """Medians over steps that took turns, and the highest memory of processes of their own."""

    device: str
    members: int
    batch_size: int
    crop: tuple[int, int]
    plain_seconds: float
    distillation_seconds: float
    plain_bytes: int
    """Peak of the GPU memory that torch allocated, or of the process's resident memory on a CPU."""
    distillation_bytes: int

    @property
    def ratio(self) -> float:
        """Time of a distillation step over that of a plain one."""
        return self.distillation_seconds / self.plain_seconds

    def claim(self) -> Limit:
        """Return the limit with its measured value."""
        text = f"time of a step with a teacher of {self.members} over that of a plain one"
        return Limit(text, LIMIT, self.ratio, at_most=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "ratio": self.ratio}


def step_cost(
    config: TrainConfig, members: int, *, steps: int = 10, device: str = "cpu"
) -> StepCost:
    """Time training steps of a configuration, with a teacher of several members and without.

    Weights and images are random: neither changes what a step costs.

    Args:
        config: of the student; its teacher is replaced.
        members: of the Deep Ensemble that teaches; 1 = a single network.
        steps: of each kind.
        device: `cpu` or `cuda`.
    """
    step_plain = _stepper(config, 0, device)
    step_taught = _stepper(config, members, device)
    step_plain(), step_taught()
    plain, taught = [], []
    for _ in range(steps):
        plain.append(step_plain())
        taught.append(step_taught())
    plain_bytes, taught_bytes = (_memory(config, count, device) for count in (0, members))
    return StepCost(
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        members=members,
        batch_size=config.data.batch_size,
        crop=config.data.crop,
        plain_seconds=statistics.median(plain),
        distillation_seconds=statistics.median(taught),
        plain_bytes=plain_bytes,
        distillation_bytes=taught_bytes,
    )


def _stepper(config: TrainConfig, members: int, device: str) -> Callable[[], float]:
    """A function that trains one step and returns its seconds."""
    keep_freed_memory()  # as training does
    model = config.model.model_copy(update={"start_from": None, "encoder_weights": None})
    config = config.model_copy(update={"model": model})
    spec = describe_model(config, load_label_set("cityscapes"))
    network = build_network(config, spec)
    module: SupervisedModule
    if members:
        arguments = {k: v for k, v in spec.arguments.items() if k != "split_uncertainty"}
        changed: dict[str, Any] = {"arguments": arguments}
        if members > 1:
            changed["architecture"] = "deep_ensemble"
            changed["arguments"] = {**arguments, "members": members}
        taught = spec.model_copy(update=changed)
        teacher = Teacher(LoadedModel(taught.build().eval(), taught, Path()), ColourJitter())
        teacher.to(torch.device(device))
        module = DistillationModule(config, spec, network, teacher)
    else:
        module = SupervisedModule(config, spec, network)
    module.to(device).train()
    precision = config.trainer.precision
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6, fused=fuses_optimizer(precision))
    mixed = device == "cuda" and precision.endswith("-mixed")
    kind = torch.float16 if precision == "16-mixed" else torch.bfloat16
    scaler = torch.amp.GradScaler(device, enabled=mixed and kind == torch.float16)
    batch = _batch(config, len(spec.label_set or ()), device)

    def step() -> float:
        start = _now(device)
        with torch.autocast(device, kind, enabled=mixed):
            terms = module.terms(module.outputs(batch), batch)
            total = torch.stack(list(terms.values())).sum()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return _now(device) - start

    return step


def _batch(config: TrainConfig, classes: int, device: str) -> Batch:
    """Random images; every second one is without depth, which some terms are about."""
    height, width = config.data.crop
    generator = np.random.default_rng(0)
    low, high = config.model.depth_range

    def sample(index: int) -> Sample:
        depth = generator.uniform(low, min(high, 80.0), (height, width)).astype(np.float32)
        return Sample(
            name=str(index),
            clip="",
            image=generator.integers(0, 256, (height, width, 3), np.uint8),
            labels=generator.integers(0, classes, (height, width), np.uint8),
            depth=None if index % 2 else depth,
            normals=np.full((height, width, 3), (0.0, 0.0, -1.0), np.float32),
            edges=generator.integers(0, 2, (height, width), np.uint8),
            intrinsics=Intrinsics.from_focal_ratio(width, height, 1.0),
            seed=index,
        )

    batch = collate([sample(i) for i in range(config.data.batch_size)], config.model.tasks)
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return cast(Batch, moved)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _memory(config: TrainConfig, members: int, device: str) -> int:
    """Peak bytes of a few steps in a process of their own, by `main`."""
    asked = json.dumps([config.model_dump(mode="json"), members, device])
    command = [sys.executable, "-m", "emu_perception.benchmark.training_cost"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of a step failed: {done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    """Read configuration, members and device as JSON; print the bytes that training takes."""
    values, members, device = json.load(sys.stdin)
    step = _stepper(TrainConfig.model_validate(values), members, device)
    for _ in range(2):
        step()
    print(torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes())


if __name__ == "__main__":
    main()
