"""Frame by frame into figures: the same offline and live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.evaluation import Evaluation, Evaluator
from emu_perception.evaluation.frames import Frame, FrameLog
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.prediction import Prediction
from emu_perception.recordings.problems import Problems


@dataclass(frozen=True)
class RecordedFrame:
    """One image of a recording or of a live camera, and what is known of it."""

    index: int
    """Its place among the images, those that cannot be decoded included."""
    stamp_ns: int
    image: np.ndarray | None
    """`(H, W, 3)` uint8 RGB; None where only its maps were published."""
    intrinsics: Intrinsics | None = None
    labels: np.ndarray | None = None
    """True class ids, at the size of the prediction."""
    depth: np.ndarray | None = None
    """True metres, at the size of the prediction."""
    prediction: Prediction | None = None
    """The maps that were published for it; None where a model is still to be run."""


class Scorer:
    """Running figures, the table, and the frames to look at.

    Args:
        spec: of the model: its classes and depth range.
        problems: counts what cannot be scored.
        log: takes the frames.
    """

    def __init__(self, spec: ModelSpec, problems: Problems, log: FrameLog) -> None:
        self.evaluator = Evaluator(
            spec.label_set if "semantic" in spec.tasks else None,
            spec.depth_range if "depth" in spec.tasks else None,
        )
        self.problems, self.log = problems, log
        self._begin: int | None = None

    def add(
        self, frame: RecordedFrame, prediction: Prediction, seconds: float | None = None
    ) -> None:
        """Score one frame; `seconds` is what its prediction took."""
        if self._begin is None:
            self._begin = frame.stamp_ns
        try:
            figures = self.evaluator.update(
                prediction, frame.labels, frame.depth, clip="recording", seconds=seconds
            )
        except ValueError as error:
            self.problems.count("unscored image", f"image {frame.index}: {error}")
            return
        self.log.add(
            Frame(
                frame.index,
                str(frame.stamp_ns),
                prediction,
                figures,
                frame.stamp_ns,
                time=(frame.stamp_ns - self._begin) * 1e-9,
                image=frame.image,
                labels=frame.labels,
                depth=frame.depth,
            )
        )

    def result(self, replicates: int) -> Evaluation:
        """The figures; ValueError where not a single frame could be scored."""
        if not self.evaluator.frames:
            raise ValueError("not a single image could be scored")
        return self.evaluator.result(replicates)
