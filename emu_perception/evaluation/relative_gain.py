"""The gain of a multi-task network over single-task ones, averaged over its tasks."""

from __future__ import annotations

from collections.abc import Mapping

FIGURES = {
    "semantic": ("semantic.miou", True),
    "depth": ("depth.rmse", False),
    "normals": ("normals.mean_angular_error", False),
    "edges": ("edges.f1", True),
    "human_parts": ("human_parts.miou", True),
    "saliency": ("saliency.max_f", True),
}
"""The figure of `Evaluation` that each task is judged by, and whether more is better. Edges count
by the F1 of the edge pixels; DenseMTL's tables have `edges.f1_mean`, larger and less moved."""


def relative_gain(figures: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Delta in percent: the mean over tasks of the relative gain (Vandenhende et al., TPAMI 2021).

    Args:
        figures: of the multi-task network, by task of `FIGURES`.
        reference: of the single-task networks, for the same tasks.

    Returns:
        Positive where the network is better on average.

    Raises:
        ValueError: the tasks differ, there are none, or a reference is not positive.
    """
    if not figures or figures.keys() != reference.keys() or not figures.keys() <= FIGURES.keys():
        raise ValueError(
            f"the relative gain compares the same tasks, of {', '.join(FIGURES)}: got "
            f"{', '.join(figures) or 'none'} against {', '.join(reference) or 'none'}"
        )
    gains = []
    for task, value in figures.items():
        if not reference[task] > 0:
            raise ValueError(f"the reference of '{task}' must be positive, got {reference[task]}")
        gain = (value - reference[task]) / reference[task]
        gains.append(gain if FIGURES[task][1] else -gain)
    return 100 * sum(gains) / len(gains)
