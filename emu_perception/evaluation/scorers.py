"""Scorers of the tasks without uncertainties, by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from emu_perception.evaluation import edges, human_parts, normals, saliency
from emu_perception.evaluation.sums import Sums


class Scorer(NamedTuple):
    """Figures of a task, from sums over images."""

    sums: Callable[[np.ndarray, np.ndarray], Sums]
    """Sums of an image, of its predicted and its true map."""
    values: Callable[[Sums], dict[str, Any]]
    """All figures of the set."""
    headline: Callable[[Sums], dict[str, float | None]]
    """The figures that also get confidence intervals."""
    headline_sums: tuple[str, ...]
    """Names of the sums that these are made of, which are kept for every unit of the bootstrap."""


_SCORERS: dict[str, Scorer] = {}


def register_scorer(task: str, scorer: Scorer) -> None:
    """Set the scorer of a task, which must be one of `tasks.other_tasks`."""
    _SCORERS[task] = scorer


def find_scorer(task: str) -> Scorer:
    """The scorer of a task; ValueError where none is registered."""
    if task not in _SCORERS:
        raise ValueError(f"task '{task}' has no scorer: add one with register_scorer")
    return _SCORERS[task]


register_scorer(
    "normals", Scorer(normals.normals_sums, normals.normals_values, normals.headline, ("angles",))
)
register_scorer(
    "edges", Scorer(edges.edges_sums, edges.edges_values, edges.headline, ("edge_counts",))
)
register_scorer(
    "human_parts",
    Scorer(
        human_parts.parts_sums, human_parts.parts_values, human_parts.headline, ("part_counts",)
    ),
)
register_scorer(
    "saliency",
    Scorer(saliency.saliency_sums, saliency.saliency_values, saliency.headline, ("saliency",)),
)
