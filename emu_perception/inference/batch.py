"""Batch mode: the images of a recording or data set, with all that is slow side by side.

One thread decodes, one runs the network, and the caller's scores or writes; on a GPU the maps of
one image are downloaded while the next one is inferred.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from emu_perception.camera import Intrinsics
from emu_perception.inference.predictor import Predictor
from emu_perception.prediction import Prediction

if TYPE_CHECKING:
    import torch

QUEUED_ITEMS = 4
"""Items that wait for the network: enough to even out, and no more memory than that."""
QUEUED_ANSWERS = 2
"""Answers that wait for the caller: dense maps are large."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Request:
    """Arguments of `Predictor.predict`."""

    image: np.ndarray
    intrinsics: Intrinsics | None
    maps: Collection[str]
    output_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer(Generic[Item]):
    """An item and its prediction."""

    item: Item
    prediction: Prediction
    seconds: float | None
    """Spent on upload, inference and download, without waiting for others; None: no request."""


def predict_each(
    predictor: Predictor,
    items: Iterable[Item],
    request: Callable[[Item], Request | None],
    *,
    warm_up: bool = False,
) -> Iterator[Answer[Item]]:
    """Answers in the order of the items; memory does not grow with their number.

    Args:
        predictor: serves this alone until the iterator ends or is closed.
        items: drawn from in a thread of their own, so that decoding in there overlaps.
        request: what to predict for an item; None to pass it on with an empty prediction.
        warm_up: predict the first image twice, so that no answer's time includes compiling.

    Raises:
        Whatever `items`, `request` and `Predictor.predict` raise, at the item that it is about.
    """
    return ahead(_answers(predictor, ahead(items), request, warm_up), QUEUED_ANSWERS)


def _answers(
    predictor: Predictor,
    items: Iterator[Item],
    request: Callable[[Item], Request | None],
    warm_up: bool,
) -> Iterator[Answer[Item]]:
    downloads = None
    if predictor.device.startswith("cuda") and predictor.engine != "onnxruntime":
        import torch

        downloads = torch.cuda.Stream(predictor.device)
    before: _Pending[Item] | None = None
    for item in items:
        asked = request(item)
        if asked is not None and warm_up:
            _start(predictor, item, asked, downloads).answer()
            warm_up = False
        pending = _start(predictor, item, asked, downloads)
        if before is not None:
            yield before.answer()
            before = None
        if downloads is None:
            yield pending.answer()
        else:
            before = pending
    if before is not None:
        yield before.answer()


@dataclass
class _Pending(Generic[Item]):
    """An item whose maps are on their way to the host."""

    item: Item
    predictor: Predictor
    maps: Mapping[str, Any]
    ready: torch.cuda.Event | None
    seconds: float | None

    def answer(self) -> Answer[Item]:
        """Wait for the maps."""
        start = time.perf_counter()
        if self.ready is not None:
            self.ready.synchronize()
        prediction = self.predictor.prediction(self.maps)
        seconds = self.seconds
        if seconds is not None:
            seconds += time.perf_counter() - start
        return Answer(self.item, prediction, seconds)


def _start(
    predictor: Predictor, item: Item, asked: Request | None, downloads: torch.cuda.Stream | None
) -> _Pending[Item]:
    if asked is None:
        return _Pending(item, predictor, {}, None, None)
    start = time.perf_counter()
    maps = predictor.predict_on_device(
        asked.image, asked.intrinsics, maps=asked.maps, output_size=asked.output_size
    )
    ready = None
    if downloads is not None:
        import torch

        downloads.wait_stream(torch.cuda.current_stream(predictor.device))
        with torch.cuda.stream(downloads):
            maps = {name: _to_host(value, downloads) for name, value in maps.items()}
            ready = downloads.record_event()
    return _Pending(item, predictor, maps, ready, time.perf_counter() - start)


def _to_host(value: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    import torch

    value.record_stream(stream)  # its memory stays until the copy is done
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return host.copy_(value, non_blocking=True)


def ahead(items: Iterable[Item], size: int = QUEUED_ITEMS) -> Iterator[Item]:
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
