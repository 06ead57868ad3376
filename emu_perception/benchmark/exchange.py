"""Cost of one block of exchange between tasks, alone and in the network around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn as nn
from torch.utils.flop_counter import FlopCounterMode

from emu_perception.benchmark.measure import (
    forget_peak,
    peak_resident_bytes,
    resident_bytes,
    take_turns,
)
from emu_perception.markdown import markdown_table
from emu_perception.networks.aspp import WIDTHS
from emu_perception.networks.densemtl import DOWNSCALING, DenseMTL
from emu_perception.networks.exchange import ExchangeBlock

CLASSES = 40
"""Number of classes, equal to that of the other networks with random weights."""


@dataclass(frozen=True)
class ExchangeCost:
    """Cost of a block at the paper's width, in inference on one image, float32 on the CPU."""

    tasks: tuple[str, ...]
    size: tuple[int, int]
    scale: int
    backbone: str
    threads: int
    parameters: int
    giga_macs: float
    """Multiply-accumulates."""
    network_giga_macs: float
    """Multiply-accumulates of the whole network, the block included."""
    seconds: float
    """Median of the rounds."""
    added_bytes: int
    """Resident memory at its highest over what was there with the block's input."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def markdown(self) -> str:
        """Return a table of one row."""
        cells = [
            ", ".join(self.tasks),
            f"{self.parameters:,}",
            f"{self.giga_macs:.1f} of {self.network_giga_macs:.1f}",
            f"{self.seconds:.2f}",
            f"{self.added_bytes / 2**20:.0f}",
        ]
        heads = ["tasks", "parameters", "GMAC, of the whole", "seconds", "MiB"]
        return markdown_table(heads, [cells])


def exchange_cost(
    tasks: Sequence[str],
    size: tuple[int, int] = (480, 640),
    *,
    scale: int = 1,
    backbone: str = "resnet18",
    rounds: int = 5,
    threads: int = 1,
) -> ExchangeCost:
    """Measure a block, with random weights.

    Args:
        tasks: at least two.
        size: height and width of the image, multiples of 32.
        scale: of the block, 4 to 0.
        backbone: of the network around it.
        rounds: of which the median is taken, after one that does not count.
        threads: of the CPU.
    """
    if len(tasks) < 2:
        raise ValueError(f"an exchange needs at least two tasks, got {', '.join(tasks) or 'none'}")
    width, place = WIDTHS[scale], (size[0] >> scale, size[1] >> scale)
    with torch.device("meta"):
        network = DenseMTL(backbone, CLASSES, tasks, scales=(scale,), dilated=False).eval()
        shell = ExchangeBlock(tasks, width, DOWNSCALING[scale]).eval()
        shapes = {task: torch.empty(1, width, *place) for task in tasks}
        macs = _giga_macs(shell, shapes)
        whole = _giga_macs(network, torch.empty(1, 3, *size))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        block = ExchangeBlock(tasks, width, DOWNSCALING[scale]).eval()
        features = {task: torch.randn(1, width, *place) for task in tasks}
        seconds, added = _run(block, features, rounds)
    finally:
        torch.set_num_threads(before)
    return ExchangeCost(
        tuple(tasks),
        size,
        scale,
        backbone,
        threads,
        parameters=sum(p.numel() for p in block.parameters()),
        giga_macs=macs,
        network_giga_macs=whole,
        seconds=seconds,
        added_bytes=added,
    )


def _giga_macs(module: nn.Module, given: Any) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(given)
    return counter.get_total_flops() / 2e9


def _run(block: nn.Module, features: dict[str, torch.Tensor], rounds: int) -> tuple[float, int]:
    """Seconds of a call, and the bytes that it adds at most."""
    before = resident_bytes()
    forget_peak()
    with torch.inference_mode():
        times = take_turns({"": lambda: block(features)}, rounds=rounds, warm_up=1, device="cpu")
    return times[""].summary()["median"] / 1e3, max(0, peak_resident_bytes() - before)
