"""Score a model on a recording: decoding, inference and metrics run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from emu_perception.inference.batch import (
    Request,
    ahead,
    predict_each,
)
from emu_perception.inference.predictor import Predictor
from emu_perception.recordings.scoring import RecordedFrame, Scorer


def evaluate_frames(
    frames: Iterator[RecordedFrame],
    predictor: Predictor | None,
    scorer: Scorer,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Predict and score, with a fixed number of frames in memory.

    Args:
        frames: to be scored.
        predictor: answers the images; None to score the maps that the frames come with.
        scorer: takes them.
        progress: called with the number of frames scored.
    """
    if predictor is None:
        for frame in ahead(frames):
            assert frame.prediction is not None
            scorer.add(frame, frame.prediction, None)
            progress(scorer.evaluator.frames)
        return
    maps = predictor.available_maps

    def request(frame: RecordedFrame) -> Request:
        assert frame.image is not None
        return Request(frame.image, frame.intrinsics, maps)

    for answer in predict_each(predictor, frames, request, warm_up=True):
        scorer.add(answer.item, answer.prediction, answer.seconds)
        progress(scorer.evaluator.frames)
