"""Three threads that prepare, infer and publish side by side; the newest image of a camera wins."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

SMOOTHING = 0.2
"""Weight of the newest duration in a stage's expected duration."""
LEAD = 3.0
"""Expected durations of the preparation before the expected end of an inference, at which the next
image is taken: earlier, it would wait and grow old; later, the network would wait."""


POLL_SECONDS = 0.05


class Stages(Protocol):
    """The work on the images of one camera; no method may raise.

    `prepare` and `infer` return None where nothing is left to do.
    """

    def prepare(self, item: Any) -> Any | None:
        """First stage."""
        ...

    def infer(self, item: Any) -> Any | None:
        """Second stage: the network, one image after another for all cameras."""
        ...

    def publish(self, item: Any) -> None:
        """Last stage."""
        ...

    def overtaken(self) -> None:
        """An image was replaced by a newer one of the same camera before its inference."""
        ...

    def unwanted(self) -> None:
        """An image is forgotten because the worker stops."""
        ...


class Worker:
    """Answers images: while the network computes, the next image is prepared and the previous
    answer is published.

    Each camera has a mailbox for one image. Cameras take turns: the one that was served longest ago
    comes first.

    Args:
        after: an inference that an earlier worker left behind; a network serves one at a time.
    """

    def __init__(self, after: threading.Thread | None = None) -> None:
        self._after = after
        self._changed = threading.Condition()
        self._waiting: dict[Stages, Any] = {}
        self._served: dict[Stages, float] = {}
        self._prepared: tuple[Stages, Any] | None = None
        self._inferred: tuple[Stages, Any] | None = None
        self._inferring_since: float | None = None
        self._durations = {"prepare": 0.0, "infer": 0.0}
        self._stopping = self._left = False
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (
                ("preparation", self._prepare),
                ("inference", self._infer),
                ("publishing", self._publish),
            )
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, stages: Stages, item: Any) -> None:
        """Put an image into its camera's mailbox, in place of one that was not begun."""
        with self._changed:
            replaced = stages in self._waiting
            self._waiting[stages] = item
            self._changed.notify_all()
        if replaced:
            stages.overtaken()

    def stop(self, patience: float = math.inf) -> threading.Thread | None:
        """Finish the stages that run, forget all other images, end the threads.

        Args:
            patience: seconds for the inference that runs. One that compiles for a new size of image
                takes longer: it is left behind, and its image counts as unwanted when it ends.

        Returns:
            The thread of an inference that was left behind.
        """
        end = time.monotonic() + patience
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        preparation, inference, publishing = self._threads
        preparation.join()
        publishing.join()
        inference.join(None if patience == math.inf else max(0.0, end - time.monotonic()))
        with self._changed:
            self._left = inference.is_alive()
            forgotten = list(self._waiting)
            forgotten += [kept[0] for kept in (self._prepared, self._inferred) if kept is not None]
            self._waiting.clear()
            self._prepared = self._inferred = None
        for stages in forgotten:
            stages.unwanted()
        left = inference if self._left else self._after
        return left if left is not None and left.is_alive() else None

    def _prepare(self) -> None:
        while True:
            with self._changed:
                stages = self._wait_for_image()
                if stages is None:
                    return
                item = self._waiting.pop(stages)
                self._served[stages] = time.monotonic()
            prepared = self._timed("prepare", stages.prepare, item)
            with self._changed:
                replaced = self._prepared is not None and prepared is not None
                if prepared is not None:
                    self._prepared = stages, prepared
                self._changed.notify_all()
            if replaced:
                stages.overtaken()

    def _wait_for_image(self) -> Stages | None:
        """The camera whose image is prepared next, once it is time; None when stopping."""
        while not self._stopping:
            # A prepared image gives way only to a newer one of its own camera.
            mine = [s for s in self._waiting if self._prepared is None or self._prepared[0] is s]
            early = self._seconds_too_early() if mine else None
            if mine and not early:
                return min(mine, key=lambda s: self._served.get(s, 0.0))
            self._changed.wait(early)
        return None

    def _seconds_too_early(self) -> float:
        if self._inferring_since is None:
            return 0.0
        expected = self._durations["infer"] - LEAD * self._durations["prepare"]
        return max(0.0, self._inferring_since + expected - time.monotonic())

    def _infer(self) -> None:
        while self._after is not None and self._after.is_alive() and not self._stopping:
            self._after.join(POLL_SECONDS)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._prepared is not None)
                if self._stopping or self._prepared is None:
                    return
                (stages, item), self._prepared = self._prepared, None
                self._inferring_since = time.monotonic()
                self._changed.notify_all()
            inferred = self._timed("infer", stages.infer, item)
            with self._changed:
                self._inferring_since = None
                self._changed.notify_all()
                # An answer must not grow old behind another: no more than one waits.
                self._changed.wait_for(lambda: self._stopping or self._inferred is None)
                full = self._inferred is not None or self._left
                if inferred is not None and not full:
                    self._inferred = stages, inferred
                self._changed.notify_all()
            if inferred is not None and full:  # the worker stops
                stages.unwanted()

    def _publish(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._inferred is not None)
                if self._stopping or self._inferred is None:
                    return
                (stages, item), self._inferred = self._inferred, None
                self._changed.notify_all()
            stages.publish(item)

    def _timed(self, name: str, stage: Callable[[Any], Any | None], item: Any) -> Any | None:
        begin = time.monotonic()
        result = stage(item)
        took = time.monotonic() - begin
        before = self._durations[name] or took
        self._durations[name] = before + SMOOTHING * (took - before)
        return result
