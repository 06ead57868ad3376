"""The gain of a multi-task network over single-task ones, averaged over its tasks."""

from __future__ import annotations

from collections.abc import Mapping

from emu_perception.evaluation.catalogue import more_is_better
from emu_perception.tasks import TASKS


def relative_gain(figures: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Delta in percent: the mean over tasks of the relative gain (Vandenhende et al., TPAMI 2021).

    With several figures of a task it is the mean over all figures. With mIoU, pixel accuracy, and
    absolute and relative error of inverse depth this is XTasC-Net's (arXiv 2111.14122, Eq. 17).

    Args:
        figures: of the multi-task network, by task, or by dotted key of `Evaluation`.
        reference: of the single-task networks, by the same keys.

    Returns:
        Positive where the network is better on average.

    Raises:
        ValueError: the keys differ, there are none, or a reference is not positive.
    """
    known = all(name.partition(".")[0] in TASKS for name in figures)
    if not figures or figures.keys() != reference.keys() or not known:
        raise ValueError(
            f"the relative gain compares the same tasks, of {', '.join(TASKS)}: got "
            f"{', '.join(figures) or 'none'} against {', '.join(reference) or 'none'}"
        )
    gains = []
    for name, value in figures.items():
        if not reference[name] > 0:
            raise ValueError(f"the reference of '{name}' must be positive, got {reference[name]}")
        gain = (value - reference[name]) / reference[name]
        gains.append(gain if more_is_better(name) else -gain)
    return 100 * sum(gains) / len(gains)
