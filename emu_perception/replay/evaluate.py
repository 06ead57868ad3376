"""Score a model on a recording: decoding, inference and metrics run side by side."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from emu_perception.prediction import Prediction
from emu_perception.predictor import Predictor
from emu_perception.replay.scoring import RecordedFrame, Scorer

QUEUED = 4
"""Frames that wait between two threads: enough to even out, and no more memory than that."""
Item = TypeVar("Item")


def ahead(items: Iterator[Item], size: int = QUEUED) -> Iterator[Item]:
    """The same items, made in a thread of their own that is at most `size` ahead."""
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(size)
    stopping = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopping.is_set():
            try:
                made.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            good, item = made.get()
            if not good:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        stopping.set()
        thread.join()


def evaluate_frames(
    frames: Iterator[RecordedFrame],
    predictor: Predictor | None,
    scorer: Scorer,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Predict and score in three threads, with a fixed number of frames in memory.

    Args:
        frames: to be scored.
        predictor: answers the images; None to score the maps that the frames come with.
        scorer: takes them.
        progress: called with the number of frames scored.
    """

    def predicted() -> Iterator[tuple[RecordedFrame, Prediction, float | None]]:
        first = True
        for frame in ahead(frames):
            if predictor is None:
                assert frame.prediction is not None
                yield frame, frame.prediction, None
                continue
            assert frame.image is not None
            arguments = (frame.image, frame.intrinsics)
            if first:  # compiling and warming up belong to no image
                predictor.predict(*arguments, maps=predictor.available_maps)
                first = False
            start = time.perf_counter()
            prediction = predictor.predict(*arguments, maps=predictor.available_maps)
            yield frame, prediction, time.perf_counter() - start

    for frame, prediction, seconds in ahead(predicted()):
        scorer.add(frame, prediction, seconds)
        progress(scorer.evaluator.frames)
