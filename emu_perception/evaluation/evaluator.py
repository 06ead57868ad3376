"""Score predictions against ground truth, frame by frame, in constant memory."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np

from emu_perception.evaluation import bootstrap
from emu_perception.evaluation.boundary import boundary_proximity, near_boundary
from emu_perception.evaluation.depth import chosen_classes, depth_sums, depth_values, where_class
from emu_perception.evaluation.depth import headline as depth_headline
from emu_perception.evaluation.out_of_distribution import (
    out_of_distribution_sums,
    out_of_distribution_values,
)
from emu_perception.evaluation.result import Evaluation, explain_missing
from emu_perception.evaluation.scorers import find_scorer
from emu_perception.evaluation.semantic import headline as semantic_headline
from emu_perception.evaluation.semantic import semantic_sums, semantic_values
from emu_perception.evaluation.sums import Sums, add, ratio
from emu_perception.evaluation.task_sums import TaskSums
from emu_perception.evaluation.units import Units
from emu_perception.labels import LabelSet
from emu_perception.prediction import Prediction
from emu_perception.tasks import TASKS, other_tasks


class Evaluator:
    """Running metrics of a model.

    Feed it with `update`, read `result` at any time. Its memory does not depend on the number of
    frames (but for the clips' names), and evaluators of parts of a set (in other processes: they
    pickle) `merge` into one.
    The module `emu_perception.evaluation.result` explains each key of the result.
    """

    def __init__(
        self,
        label_set: LabelSet | None = None,
        depth_range: tuple[float, float] | None = None,
        *,
        tasks: Collection[str] = (),
        void_as_inaccurate: bool = False,
        boundary_width: float = 0.005,
        baselines: bool = True,
        depth_classes: Collection[str] | None = None,
    ) -> None:
        """
        Args:
            label_set: of predictions and truth; None leaves the semantic task out.
            depth_range: metres; true depths outside are unknown. None leaves depth out.
            tasks: further ones to score, of `tasks.other_tasks`; "edges" needs scikit-image and
                SciPy.
            void_as_inaccurate: count pixels without ground truth as inaccurate in
                p(accurate|certain), p(uncertain|inaccurate) and PAvPU.
            boundary_width: what `ece_boundary` calls near, as a fraction of the image diagonal.
            baselines: also compute `ause_boundary` and `ause_predicted_depth`, a fifth
                of the time.
            depth_classes: names of classes; depth at the pixels predicted as one of them is also
                scored by itself. By default the vehicles that the label set has.
        """
        if label_set is None and depth_range is None and not tasks:
            raise ValueError("nothing to evaluate: give a label set, a depth range or tasks")
        if depth_range is not None and not 0 <= depth_range[0] < depth_range[1]:
            raise ValueError(f"the depth range must rise from 0 m or more, got {depth_range}")
        self.label_set = label_set
        self.depth_range = depth_range
        self._scorers = {name: find_scorer(name) for name in other_tasks() if name in tasks}
        self.void_as_inaccurate = void_as_inaccurate
        self.boundary_width = boundary_width
        self.baselines = baselines
        self.depth_classes = chosen_classes(depth_classes, label_set)
        self.frames = 0
        self._units = Units()
        self._tasks = {
            "semantic": TaskSums(semantic_headline),
            "depth": TaskSums(depth_headline),
            "depth_of_classes": TaskSums(depth_headline),
            **{
                name: TaskSums(scorer.headline, scorer.headline_sums)
                for name, scorer in self._scorers.items()
            },
        }
        self._out_of_distribution: Sums = {}
        self._general: Sums = {}
        """Sums and counts of the time and the uncertainties of all frames."""

    def update(
        self,
        prediction: Prediction,
        labels: np.ndarray | None = None,
        depth: np.ndarray | None = None,
        *,
        others: Mapping[str, np.ndarray | None] | None = None,
        out_of_distribution: np.ndarray | None = None,
        clip: Hashable | None = None,
        seconds: float | None = None,
    ) -> dict[str, float]:
        """Score one frame; a frame with an error in it changes nothing.

        Args:
            prediction: what the predictor returned.
            labels: `(H, W)` integers, true class ids of the label set, 255 = unlabelled.
            depth: `(H, W)` float, metres; 0, NaN or out of range = unknown.
            others: true maps of `tasks` by field, as in `Sample`.
            out_of_distribution: `(H, W)` bool, or integers with 255 = ignore.
            clip: name of the sequence that the frame belongs to. Neighbouring frames of a video
                resemble one another; naming the clips keeps the intervals from being too narrow.
                Name all frames or none, and keep those of a clip in their order.
            seconds: what the prediction took, for `seconds_per_frame`.

        Returns:
            The frame's own headline figures and mean uncertainties by dotted key.

        Raises:
            ValueError: sizes differ, or labels hold ids that the label set lacks.
        """
        sums = self._task_sums(prediction, labels, depth)
        for name, scorer in self._scorers.items():
            field = TASKS[name].field
            predicted, truth = prediction.get(field), (others or {}).get(field)
            if predicted is not None and truth is not None:
                channels = (3,) if TASKS[name].kind == "direction" else ()
                what = field.replace("_", " ")
                sums[name] = scorer.sums(predicted, _same_size(what, truth, prediction, channels))
        unknown: Sums = {}
        if out_of_distribution is not None:
            mask = _same_size("out-of-distribution mask", out_of_distribution, prediction)
            unknown = out_of_distribution_sums(prediction, mask)
        general = _mean_uncertainties(prediction)
        figures = self._mean_uncertainty_values(general)
        if prediction.domain_distance is not None:
            figures["domain.mean_distance"] = prediction.domain_distance
            above = float(prediction.domain_distance > 1)
            general["domain"] = np.array([prediction.domain_distance, above, 1.0])
        if seconds is not None:
            general["seconds"] = np.array([seconds, 1.0])

        place = self._units.take(clip)
        for name, of_task in sums.items():
            for key, value in self._tasks[name].add(of_task, *place).items():
                if value is not None:
                    figures[f"{name}.{key}"] = value
        add(self._out_of_distribution, unknown)
        add(self._general, general)
        self.frames += 1
        return figures

    def merge(self, other: Evaluator) -> None:
        """Add the frames of another evaluator, as if they had come after this one's.

        Raises:
            ValueError: the two were made with different settings.
        """
        if self._settings() != other._settings():
            raise ValueError(
                f"cannot merge evaluators with different settings: {self._settings()} and "
                f"{other._settings()}"
            )
        groups, first = self._units.merge(other._units)
        for name, task in self._tasks.items():
            task.merge(other._tasks[name], groups, first, self._units.block_length)
        add(self._out_of_distribution, other._out_of_distribution)
        add(self._general, other._general)
        self.frames += other.frames

    def result(self, replicates: int = 1000, seed: int = 0) -> Evaluation:
        """The figures of all frames so far.

        Args:
            replicates: bootstrap draws for the intervals; 0 leaves the intervals out.
            seed: of the draws.
        """
        semantic, depth, of_classes = (
            self._tasks[name].total for name in ("semantic", "depth", "depth_of_classes")
        )
        names = self.label_set.names if self.label_set else ()
        values: dict[str, Any] = {
            "frames": self.frames,
            "frames_with_labels": self._tasks["semantic"].frames,
            "frames_with_depth": self._tasks["depth"].frames,
            "seconds_per_frame": ratio(*self._general.get("seconds", np.zeros(2))),
            "mean_uncertainty": {
                key.removeprefix("mean_uncertainty."): value
                for key, value in self._mean_uncertainty_values(self._general).items()
            },
            "semantic": semantic_values(semantic, names) if semantic else None,
            "domain": _domain_values(self._general),
            "depth": depth_values(depth) if depth else None,
            "depth_of_classes": depth_values(of_classes) if of_classes else None,
            **{
                name: self._scorers[name].values(self._tasks[name].total)
                if name in self._scorers and self._tasks[name].total
                else None
                for name in other_tasks()
            },
            "out_of_distribution": out_of_distribution_values(self._out_of_distribution) or None,
            "settings": self._settings(),
        }
        sums = {name: task.total.keys() for name, task in self._tasks.items()}
        values["missing"] = explain_missing(values, sums, self.baselines)
        values["intervals"] = {
            f"{name}.{key}": list(ends)
            for name, task in self._tasks.items()
            if task.total and replicates
            for key, ends in bootstrap.intervals(
                task.drawn(self._units),
                task.headline,
                values[name],
                replicates=replicates,
                seed=seed,
            ).items()
        }
        values["interval_unit"] = self._units.name if values["intervals"] else None
        return Evaluation(values)

    def differences(
        self, other: Evaluator, replicates: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float, float]]:
        """How much larger each headline figure of `other` is: difference, low, high (95 %).

        The images are resampled for both together, which is far sharper than comparing two
        `intervals`.

        Raises:
            ValueError: the two did not see the same frames in the same order.
        """
        return {
            f"{name}.{key}": ends
            for name, task in self._tasks.items()
            if task.total and other._tasks[name].total
            for key, ends in bootstrap.paired_intervals(
                task.drawn(self._units),
                other._tasks[name].drawn(other._units),
                task.headline,
                replicates=replicates,
                seed=seed,
            ).items()
        }

    def _task_sums(
        self, prediction: Prediction, labels: np.ndarray | None, depth: np.ndarray | None
    ) -> dict[str, Sums]:
        """The frame's sums of each task that has a prediction and ground truth."""
        proximity = None
        scored = labels is not None or depth is not None
        if self.baselines and scored and prediction.labels is not None:
            proximity = boundary_proximity(prediction.labels)
        sums: dict[str, Sums] = {}
        if self.label_set is not None and labels is not None and prediction.labels is not None:
            truth = _as_labels(_same_size("labels", labels, prediction))
            width = round(self.boundary_width * float(np.hypot(*truth.shape)))
            sums["semantic"] = semantic_sums(
                prediction,
                truth,
                len(self.label_set),
                near_boundary=near_boundary(truth, width),
                proximity=proximity,
                void_as_inaccurate=self.void_as_inaccurate,
            )
        if self.depth_range is not None and depth is not None and prediction.depth is not None:
            sums["depth"] = depth_sums(
                prediction,
                _same_size("depth", depth, prediction),
                self.depth_range,
                proximity=proximity,
                void_as_inaccurate=self.void_as_inaccurate,
            )
            if self.label_set is not None and self.depth_classes and prediction.labels is not None:
                ids = [self.label_set.index(name) for name in self.depth_classes]
                sums["depth_of_classes"] = depth_sums(
                    prediction, where_class(depth, prediction.labels, ids), self.depth_range
                )
        return sums

    def _mean_uncertainty_values(self, general: Sums) -> dict[str, float]:
        """Means by dotted key, the entropies as fractions of ln C."""
        largest = np.log(max(len(self.label_set), 2)) if self.label_set else 1.0
        return {
            f"mean_uncertainty.{name}": float(total / pixels)
            / (float(largest) if name.startswith("semantic") else 1.0)
            for name, (total, pixels, *_) in general.items()
            if name not in ("seconds", "domain") and pixels
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "label_set": self.label_set.name if self.label_set else None,
            "classes": list(self.label_set.names) if self.label_set else None,
            "depth_range": list(self.depth_range) if self.depth_range else None,
            **{name: name in self._scorers for name in other_tasks()},
            "void_as_inaccurate": self.void_as_inaccurate,
            "boundary_width": self.boundary_width,
            "baselines": self.baselines,
            "depth_classes": list(self.depth_classes),
        }


def _domain_values(general: Sums) -> dict[str, float] | None:
    if "domain" not in general:
        return None
    distances, above, frames = general["domain"]
    return {"mean_distance": float(distances / frames), "above_threshold": float(above / frames)}


def _same_size(
    what: str, truth: np.ndarray, prediction: Prediction, channels: tuple[int, ...] = ()
) -> np.ndarray:
    if truth.shape != (*prediction.size, *channels):
        raise ValueError(
            f"the true {what} has shape {truth.shape}, but the prediction is "
            f"{prediction.size[0]} x {prediction.size[1]} (height x width); bring the ground "
            "truth to the image's size first, labels and depth by nearest neighbour"
        )
    return truth


def _as_labels(labels: np.ndarray) -> np.ndarray:
    if labels.dtype == np.uint8:
        return labels
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"true labels must be integers from 0 to 255, got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}"
        )
    return labels.astype(np.uint8)


def _mean_uncertainties(prediction: Prediction) -> Sums:
    """Sum and number of pixels of each uncertainty map (nats, metres of standard deviation)."""
    sums: Sums = {}
    for name, values in (
        ("semantic", prediction.semantic_entropy),
        ("semantic_epistemic", prediction.semantic_epistemic),
    ):
        if values is not None:
            sums[name] = np.array([values.sum(), values.size], np.float64)
    for name, values in (
        ("depth", prediction.depth_variance),
        ("depth_epistemic", prediction.depth_epistemic),
    ):
        if values is not None:
            known = np.isfinite(values)
            deviations = np.sqrt(np.where(known, values, np.float32(0)))
            sums[name] = np.array([deviations.sum(), np.count_nonzero(known)], np.float64)
    return sums
