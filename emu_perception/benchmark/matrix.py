"""Networks by engine, size and precision, measured in turns with the baseline."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from emu_perception.benchmark.cases import Case, example_image
from emu_perception.benchmark.measure import Times, describe_machine, ratio, take_turns
from emu_perception.benchmark.memory import memory
from emu_perception.benchmark.peer import make_peer
from emu_perception.inference.predictor import Predictor
from emu_perception.inference.threads import VARIABLE


@dataclass(frozen=True)
class Row:
    """A case's figures."""

    case: Case
    engine: str
    """Which one `auto` was."""
    host: dict[str, float]
    """`Times.summary` of `Predictor.predict`: image in host memory to all maps in host memory."""
    on_device: dict[str, float] | None
    """The same until the maps are on the GPU; None on a CPU."""
    over_peer: dict[str, float]
    """By the peer's kind: its time over that of this row (until the maps are on the device)."""
    memory: dict[str, int]
    """See `memory.memory`; empty if it was not measured."""

    @property
    def best(self) -> dict[str, float]:
        """Until the maps are where the network runs."""
        return self.on_device or self.host


@dataclass(frozen=True)
class PeerRow:
    """The peer's figures."""

    model: str
    size: tuple[int, int]
    precision: str
    kind: str
    times: dict[str, float]


@dataclass(frozen=True)
class Matrix:
    """All figures of one run."""

    machine: dict[str, Any]
    rounds: int
    rows: list[Row] = field(default_factory=list)
    peers: list[PeerRow] = field(default_factory=list)
    load_average: tuple[float, float] = (0.0, 0.0)
    """Load average of the last minute, before and after."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def find(
        self, model: str, size: tuple[int, int], precision: str, members: int = 1
    ) -> list[Row]:
        """The rows of a network, fastest first."""
        found = [
            row
            for row in self.rows
            if (row.case.model, row.case.size, row.case.precision, row.case.members)
            == (model, size, precision, members)
        ]
        return sorted(found, key=lambda row: row.best["median"])


def run_matrix(
    cases: Sequence[Case],
    *,
    peers: Sequence[str] = ("eager",),
    rounds: int = 20,
    warm_up: int = 3,
    threads: int = 2,
    measure_memory: bool = True,
    progress: Callable[[str], None] = lambda what: None,
) -> Matrix:
    """Measure cases; those of one network and size take turns with each other and the peer.

    Args:
        cases: all of one device.
        peers: some of `peer.KINDS`.
        rounds: calls of each that count.
        warm_up: calls of each before.
        threads: of the CPU, for everybody.
        measure_memory: run each case once more in a process of its own.
        progress: called with what begins.

    Raises:
        ValueError: an engine does not serve a case; the message states why.
        ModuleNotFoundError: a baseline is requested and `transformers` is not installed.
    """
    os.environ[VARIABLE] = str(threads)  # of the engines without torch
    torch.set_num_threads(threads)
    load_before = os.getloadavg()[0]
    result = Matrix(describe_machine(cases[0].device), rounds)
    for group in _groups(cases):
        _measure_group(group, result, peers, rounds, warm_up, progress)
    if measure_memory:
        for index, row in enumerate(result.rows):
            progress(f"memory of {row.case.name}")
            result.rows[index] = replace(row, memory=memory(row.case, threads))
    return replace(result, load_average=(load_before, os.getloadavg()[0]))


def _groups(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases of one network and size together, in the order in which they were named."""
    groups: dict[tuple[str, tuple[int, int]], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.model, case.size), []).append(case)
    return list(groups.values())


def _measure_group(
    group: list[Case],
    result: Matrix,
    peers: Sequence[str],
    rounds: int,
    warm_up: int,
    progress: Callable[[str], None],
) -> None:
    model, size, device = group[0].model, group[0].size, group[0].device
    label = f"{model} at {size[1]} x {size[0]}"
    progress(f"{label}: loading")
    image = example_image(size)
    predictors = [Predictor(c.load(), c.device, c.precision, c.engine) for c in group]
    functions: dict[str, Callable[[], object]] = {}
    peer_keys = {}
    if group[0].is_random:
        for precision in dict.fromkeys(case.precision for case in group):
            for kind in peers:
                key = f"peer {kind} {precision}"
                functions[key] = make_peer(model, size, device, precision, kind)
                peer_keys[key] = (precision, kind)
    for index, predictor in enumerate(predictors):
        functions[f"{index} host"] = _to_host(predictor, image)
        if device != "cpu":
            functions[f"{index} device"] = _to_device(predictor, image)
    times = take_turns(
        functions,
        rounds=rounds,
        warm_up=warm_up,
        device=device,
        progress=lambda what: progress(f"{label}: {what}"),
    )
    for key, (precision, kind) in peer_keys.items():
        result.peers.append(PeerRow(model, size, precision, kind, times[key].summary()))
    for index, (case, predictor) in enumerate(zip(group, predictors, strict=True)):
        host, on_device = times[f"{index} host"], times.get(f"{index} device")
        over_peer = {
            kind: ratio(times[key], on_device or host)
            for key, (precision, kind) in peer_keys.items()
            if precision == case.precision
        }
        result.rows.append(
            Row(case, predictor.engine, host.summary(), _summary(on_device), over_peer, {})
        )
        predictor.close()
    del functions, predictors
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def _summary(times: Times | None) -> dict[str, float] | None:
    return None if times is None else times.summary()


def _to_host(predictor: Predictor, image: np.ndarray) -> Callable[[], object]:
    return lambda: predictor.predict(image)


def _to_device(predictor: Predictor, image: np.ndarray) -> Callable[[], object]:
    return lambda: predictor.predict_on_device(image)
