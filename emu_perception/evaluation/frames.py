"""Single frames of a report: a row each on disk, a timeline, and a few pictures.

In memory there are a fixed number of averages and of frames, however long the recording is.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.atomic import replacing
from emu_perception.prediction import Prediction

FIGURES = (
    *(
        f"semantic.{name}"
        for name in (
            *("miou", "pixel_accuracy", "ece", "nll", "brier"),
            *("p_accurate_certain", "p_uncertain_inaccurate", "pavpu", "ause"),
        )
    ),
    *(
        f"depth.{name}"
        for name in (
            *("rmse", "mae", "absrel", "delta1", "nll"),
            *("p_accurate_certain", "p_uncertain_inaccurate", "pavpu", "ause"),
        )
    ),
    "depth_of_classes.absrel",
    "depth_of_classes.delta1",
    "domain.mean_distance",
    *(
        f"mean_uncertainty.{name}"
        for name in ("semantic", "semantic_epistemic", "depth", "depth_epistemic")
    ),
)
"""Columns of `frames.csv` after the frame's own: what `Evaluator.update` returns."""
COLUMNS = ("frame", "name", "stamp_ns", "time", *FIGURES)
TIMELINE_POINTS = 512
KEPT = 3
"""Frames to look at, of each kind."""


@dataclass(frozen=True)
class Frame:
    """One scored frame."""

    index: int
    """Its place in the recording or data set, from 0."""
    name: str
    prediction: Prediction
    figures: Mapping[str, float]
    """Its own figures, as `Evaluator.update` returns them."""
    stamp_ns: int | None = None
    """When it was taken; None for a data set's images."""
    time: float | None = None
    """Seconds since the first frame; None for a data set's images."""
    image: np.ndarray | None = None
    """`(H, W, 3)` uint8 RGB, where it is known."""
    labels: np.ndarray | None = None
    """`(H, W)` uint8, true class ids."""
    depth: np.ndarray | None = None
    """`(H, W)` true depth in metres."""


@dataclass(frozen=True)
class Ranking:
    """A reason to look at a frame."""

    title: str
    figure: str
    sign: int
    """1: the largest come first; -1: the smallest."""


RANKINGS = (
    Ranking("Lowest mIoU", "semantic.miou", -1),
    Ranking("Largest depth error", "depth.rmse", 1),
    Ranking("Most uncertain about classes", "mean_uncertainty.semantic", 1),
    Ranking("Most uncertain about depth", "mean_uncertainty.depth", 1),
    Ranking("Farthest from the training domain", "domain.mean_distance", 1),
)


class FrameLog:
    """Takes every scored frame; a context manager.

    The table takes the place of an earlier one when `close` is called. Without that, at the end of
    the block, it is dropped, and what was there stays.
    """

    def __init__(self, folder: Path, apart: float = 1.0) -> None:
        """
        Args:
            folder: gets `frames.csv`, one row a frame.
            apart: seconds between frames that are kept to look at: neighbours look the same.
        """
        self._replacing = replacing(folder / "frames.csv")
        self._file = self._replacing.__enter__().open("w", encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._file, COLUMNS)
        self._table.writeheader()
        self._apart = apart
        self.timeline = Timeline()
        self.has_times = False
        self.kept: dict[Ranking, list[Frame]] = {ranking: [] for ranking in RANKINGS}

    def __enter__(self) -> FrameLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def close(self) -> None:
        """Complete the table and put it in its place."""
        if not self._file.closed:
            self._file.close()
            self._replacing.__exit__(None, None, None)

    def discard(self) -> None:
        """Drop the table, unless it was closed."""
        if not self._file.closed:
            self._file.close()
            dropped = RuntimeError("the table is dropped")
            self._replacing.__exit__(RuntimeError, dropped, None)

    def add(self, frame: Frame) -> None:
        """Write the frame's row; keep its pictures if it is among the worst so far."""
        row: dict[str, Any] = {
            "frame": frame.index,
            "name": frame.name,
            "stamp_ns": frame.stamp_ns,
            "time": None if frame.time is None else f"{frame.time:.6f}",
        }
        row |= {key: f"{frame.figures[key]:.9g}" for key in FIGURES if key in frame.figures}
        self._table.writerow(row)
        self.has_times |= frame.time is not None
        self.timeline.add(frame.index if frame.time is None else frame.time, frame.figures)
        kept = replace(frame, prediction=replace(frame.prediction, probabilities=None))
        for ranking in RANKINGS:
            if ranking.figure in frame.figures:
                self._rank(ranking, kept)

    def _rank(self, ranking: Ranking, frame: Frame) -> None:
        def badness(each: Frame) -> float:
            return ranking.sign * each.figures[ranking.figure]

        frames = self.kept[ranking]
        close = [f for f in frames if self._is_close(f, frame)]
        if any(badness(f) >= badness(frame) for f in close):
            return
        frames = [f for f in frames if not self._is_close(f, frame)] + [frame]
        self.kept[ranking] = sorted(frames, key=badness, reverse=True)[:KEPT]

    def _is_close(self, a: Frame, b: Frame) -> bool:
        if a.time is None or b.time is None:
            return False
        return abs(a.time - b.time) < self._apart


class Timeline:
    """Means of figures over equal spans of time; spans are doubled when there are too many."""

    def __init__(self, points: int = TIMELINE_POINTS) -> None:
        self._points = points
        self._span = 1e-3
        self._start: float | None = None
        self._sums: dict[int, dict[str, tuple[float, int]]] = {}

    def add(self, time: float, figures: Mapping[str, float]) -> None:
        """Add the figures of a frame at a time in seconds (or at its number)."""
        if self._start is None:
            self._start = time
        span = math.floor((time - self._start) / self._span)
        sums = self._sums.setdefault(span, {})
        for key, value in figures.items():
            total, count = sums.get(key, (0.0, 0))
            sums[key] = (total + value, count + 1)
        while len(self._sums) > self._points:
            self._double()

    def _double(self) -> None:
        before, self._sums = self._sums, {}
        self._span *= 2
        for span, sums in before.items():
            merged = self._sums.setdefault(span // 2, {})
            for key, (total, count) in sums.items():
                others, n = merged.get(key, (0.0, 0))
                merged[key] = (others + total, n + count)

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Times and mean values of one figure, by rising time."""
        points = [
            ((self._start or 0.0) + span * self._span, sums[key][0] / sums[key][1])
            for span, sums in sorted(self._sums.items())
            if key in sums
        ]
        return [t for t, _ in points], [v for _, v in points]
