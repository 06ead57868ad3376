"""The figures of an evaluation that tables, studies and gains use, each once."""

from __future__ import annotations

from typing import NamedTuple

from emu_perception.tasks import TASKS


class Figure(NamedTuple):
    """A figure of `Evaluation`."""

    head: str
    """Head of its column."""
    more_is_better: bool = True


FIGURES = {
    "seconds_per_frame": Figure("seconds", False),
    "semantic.miou": Figure("mIoU"),
    "semantic.ece": Figure("ECE", False),
    "semantic.nll": Figure("NLL", False),
    "semantic.p_accurate_certain": Figure("p(acc|cer)"),
    "semantic.p_uncertain_inaccurate": Figure("p(unc|inacc)"),
    "semantic.pavpu": Figure("PAvPU"),
    "semantic.ause": Figure("AUSE", False),
    "depth.rmse": Figure("RMSE", False),
    "depth.absrel": Figure("AbsRel", False),
    "depth.delta1": Figure("d<1.25"),
    "depth_of_classes.absrel": Figure("AbsRel of classes", False),
    "depth_of_classes.delta1": Figure("d<1.25 of classes"),
    "depth.nll": Figure("depth NLL", False),
    "depth.p_accurate_certain": Figure("depth p(acc|cer)"),
    "depth.p_uncertain_inaccurate": Figure("depth p(unc|inacc)"),
    "depth.pavpu": Figure("depth PAvPU"),
    "depth.ause": Figure("depth AUSE", False),
    "normals.mean_angular_error": Figure("mean angle", False),
    "edges.f1": Figure("edge F1"),
    "edges.ods_f": Figure("odsF"),
    "human_parts.miou": Figure("parts mIoU"),
    "saliency.max_f": Figure("maxF"),
    "domain.mean_distance": Figure("domain distance", False),
}
"""By dotted key, in the order of columns."""
_LESS_IS_BETTER = frozenset(
    (
        *(key.rpartition(".")[2] for key, figure in FIGURES.items() if not figure.more_is_better),
        *("rmse_image_mean", "mae", "sqrel", "log10", "silog", "inverse_mae", "inverse_absrel"),
        *("brier", "median_angular_error", "rms_angular_error"),
    )
)


def more_is_better(key: str) -> bool:
    """Whether a larger figure is better.

    Args:
        key: name of a task, for the figure that it is judged by, or any dotted key of `Evaluation`.
    """
    for task in TASKS.values():
        if key in (task.name, task.figure):
            return task.more_is_better
    if key in FIGURES:
        return FIGURES[key].more_is_better
    return key.rpartition(".")[2] not in _LESS_IS_BETTER
