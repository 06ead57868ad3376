"""Score a model on a recording: decoding, inference and metrics run side by side."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from emu_perception.bags.reader import BagReader
from emu_perception.camera import Intrinsics
from emu_perception.evaluation import Evaluation, Evaluator
from emu_perception.evaluation.frames import Frame, FrameLog
from emu_perception.predictor import Predictor
from emu_perception.replay.problems import Problems
from emu_perception.replay.recording import ImageDecoder

QUEUED = 4
"""Frames that wait between two threads: enough to even out, and no more memory than that."""
LARGEST_STRETCH = 0.02
"""By which the proportions of ground truth and image may differ."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class RecordedFrame:
    """One image of a recording, decoded, with its ground truth."""

    index: int
    """Its place among the images of the recording, those that cannot be decoded included."""
    stamp_ns: int
    image: np.ndarray
    """`(H, W, 3)` uint8 RGB."""
    intrinsics: Intrinsics | None
    labels: np.ndarray | None
    depth: np.ndarray | None


@dataclass(frozen=True)
class GroundTruthFolders:
    """Files in the order of the images: file i belongs to image i."""

    labels: Sequence[Path] = ()
    """8-bit class ids, 255 = unlabelled."""
    depth: Sequence[Path] = ()
    """16-bit integers, 0 = none."""
    depth_scale: float = 1e-3
    """Metres per unit of the depth files."""

    @classmethod
    def open(
        cls, labels: Path | None, depth: Path | None, depth_scale: float
    ) -> GroundTruthFolders:
        """List the folders; ValueError for one without PNG files."""
        return cls(_files(labels), _files(depth), depth_scale)


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    found = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not found:
        raise ValueError(f"{folder}: expected a folder of PNG files, one per image of the bag")
    return found


def read_frames(
    bag: BagReader, topic: str | None, truth: GroundTruthFolders, problems: Problems
) -> Iterator[RecordedFrame]:
    """Decode the images of a recording; what cannot be read is counted and left out.

    Raises:
        BagError: the bag has no such topic.
    """
    decoder = ImageDecoder(bag, topic, problems)
    for recorded in decoder.images():
        index, image = recorded.index, recorded.image
        size = (image.shape[0], image.shape[1])
        intrinsics = recorded.camera.intrinsics if recorded.camera else None
        labels = _truth(truth.labels, index, size, np.uint8, "labels", problems)
        stored = _truth(truth.depth, index, size, np.uint16, "depth", problems)
        depth = None
        if stored is not None:
            depth = stored.astype(np.float32) * np.float32(truth.depth_scale)
        yield RecordedFrame(index, recorded.stamp_ns, image, intrinsics, labels, depth)
    for what, files in (("labels", truth.labels), ("depth", truth.depth)):
        for file in files[decoder.taken :]:
            problems.count(f"{what} without an image", file.name)


def _truth(
    files: Sequence[Path],
    index: int,
    size: tuple[int, int],
    dtype: type[np.generic],
    what: str,
    problems: Problems,
) -> np.ndarray | None:
    """The file of an image at the image's size; None, after it was counted, if there is none."""
    if not files:
        return None
    if index >= len(files):
        problems.count(f"image without {what}", f"image {index}")
        return None
    file = files[index]
    values = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != dtype or values.ndim != 2:
        found = "no image" if values is None else f"{values.dtype} {values.shape}"
        expected = f"one channel of {np.dtype(dtype)}"
        problems.count(f"unreadable {what}", f"{file.name} is {found}, expected {expected}")
        return None
    if values.shape == size:
        return values
    stretch = values.shape[0] * size[1] / (values.shape[1] * size[0])
    if abs(stretch - 1) > LARGEST_STRETCH:
        problems.count(
            f"{what} of other proportions",
            f"{file.name} is {values.shape[1]} x {values.shape[0]}, "
            f"the image {size[1]} x {size[0]}",
        )
        return None
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


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
    predictor: Predictor,
    problems: Problems,
    log: FrameLog,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluator:
    """Predict and score; three threads, a fixed number of frames in memory."""

    def predicted() -> Iterator[tuple[RecordedFrame, Any, float]]:
        first = True
        for frame in ahead(frames):
            arguments = (frame.image, frame.intrinsics)
            if first:  # compiling and warming up belong to no image
                predictor.predict(*arguments, maps=predictor.available_maps)
                first = False
            start = time.perf_counter()
            prediction = predictor.predict(*arguments, maps=predictor.available_maps)
            yield frame, prediction, time.perf_counter() - start

    spec = predictor.spec
    depth_range = spec.depth_range if "depth" in spec.tasks else None
    evaluator = Evaluator(predictor.label_set, depth_range)
    begin: int | None = None
    for frame, prediction, seconds in ahead(predicted()):
        begin = frame.stamp_ns if begin is None else begin
        try:
            figures = evaluator.update(prediction, frame.labels, frame.depth, seconds=seconds)
        except ValueError as error:
            problems.count("unscored image", f"image {frame.index}: {error}")
            continue
        log.add(
            Frame(
                *(frame.index, str(frame.stamp_ns), prediction, figures, frame.stamp_ns),
                time=(frame.stamp_ns - begin) * 1e-9,
                image=frame.image,
                labels=frame.labels,
                depth=frame.depth,
            )
        )
        progress(evaluator.frames)
    return evaluator


def result_of(evaluator: Evaluator, replicates: int) -> Evaluation:
    """The figures; ValueError where not a single frame could be scored."""
    if not evaluator.frames:
        raise ValueError("not a single image of the recording could be scored")
    return evaluator.result(replicates)
