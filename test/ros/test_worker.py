"""Three threads side by side: the newest image wins, cameras take turns, nothing grows old."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from emu_perception.ros.worker import Worker

from .conftest import wait_for


class Recorder:
    """Stages that note what they are given; each waits while it is held."""

    def __init__(self, served: list[Any] | None = None) -> None:
        self.prepared: list[Any] = []
        self.inferred: list[Any] = [] if served is None else served
        self.published: list[Any] = []
        self.count = self.forgotten = 0
        self.may = {name: threading.Event() for name in ("prepare", "infer", "publish")}
        for event in self.may.values():
            event.set()

    def prepare(self, item: Any) -> Any | None:
        self.prepared.append(item)
        self.may["prepare"].wait(20)
        return None if item == "bad" else item

    def infer(self, item: Any) -> Any | None:
        self.inferred.append(item)
        self.may["infer"].wait(20)
        return None if item == "failing" else item

    def publish(self, item: Any) -> None:
        self.may["publish"].wait(20)
        self.published.append(item)

    def overtaken(self) -> None:
        self.count += 1

    def unwanted(self) -> None:
        self.forgotten += 1


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.stop()


def test_the_newest_image_wins_even_over_a_prepared_one(worker: Worker) -> None:
    camera = Recorder()
    camera.may["infer"].clear()
    worker.offer(camera, 0)
    wait_for(lambda: camera.inferred == [0], "the first inference")
    for number in range(1, 6):
        worker.offer(camera, number)
        wait_for(lambda n=number: n in camera.prepared or camera.count, "preparation")
    wait_for(lambda: camera.prepared[-1] == 5 and camera.count == 4, "the newest to be prepared")
    camera.may["infer"].set()
    wait_for(lambda: camera.published == [0, 5], "two answers")
    assert camera.inferred == [0, 5]


def test_the_next_image_is_inferred_while_the_last_is_published(worker: Worker) -> None:
    camera = Recorder()
    camera.may["publish"].clear()
    for number in range(2):
        worker.offer(camera, number)
        wait_for(lambda n=number: n in camera.inferred, "inference beside publishing")
    # One answer is published, one waits: the network waits with the third.
    worker.offer(camera, 2)
    wait_for(lambda: 2 in camera.inferred, "the third inference")
    worker.offer(camera, 3)
    wait_for(lambda: 3 in camera.prepared, "the fourth preparation")
    assert 3 not in camera.inferred
    camera.may["publish"].set()
    wait_for(lambda: camera.published == [0, 1, 2, 3], "all answers in order")


def test_cameras_take_turns(worker: Worker) -> None:
    served: list[Any] = []
    cameras = [Recorder(served) for _ in range(4)]
    done = threading.Event()

    def send(camera: Recorder, name: int) -> None:
        while not done.is_set():
            worker.offer(camera, name)
            # The first camera is ten times as fast as the others.
            done.wait(0.0005 if name == 0 else 0.005)

    threads = [threading.Thread(target=send, args=(c, i)) for i, c in enumerate(cameras)]
    slow = Recorder.infer

    def infer(self: Recorder, item: Any) -> Any:
        done.wait(0.01)
        return slow(self, item)

    for camera in cameras:
        camera.infer = infer.__get__(camera)  # type: ignore[method-assign]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(served) > 80, "eighty inferences")
    done.set()
    for thread in threads:
        thread.join()
    counts = [served[8:72].count(i) for i in range(4)]
    assert max(counts) <= 1.3 * min(counts)


def test_what_a_stage_refuses_goes_no_further(worker: Worker) -> None:
    camera = Recorder()
    for item in ("bad", "failing", "good"):
        worker.offer(camera, item)
        wait_for(lambda i=item: i in camera.prepared, "its preparation")
        wait_for(lambda i=item: i == "bad" or i in camera.inferred, "its inference")
    wait_for(lambda: camera.published == ["good"], "the good one")
    assert "bad" not in camera.inferred


def test_stopping_forgets_what_waits() -> None:
    worker, camera = Worker(), Recorder()
    camera.may["infer"].clear()
    worker.offer(camera, 0)
    wait_for(lambda: camera.inferred == [0], "the first inference")
    worker.offer(camera, 1)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    camera.may["infer"].set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert camera.inferred == [0]


def test_no_image_is_lost_uncounted_when_the_worker_stops() -> None:
    worker, camera = Worker(), Recorder()
    camera.may["publish"].clear()
    for number in range(5):
        worker.offer(camera, number)
        wait_for(lambda n=number: n in camera.prepared or n > 3, "the stages to fill")
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    camera.may["publish"].set()
    stopping.join(20)
    assert not stopping.is_alive()
    assert len(camera.published) + camera.count + camera.forgotten == 5
    assert camera.forgotten


def test_an_inference_that_compiles_is_left_behind() -> None:
    first, second = Recorder(), Recorder()
    first.may["infer"].clear()
    worker = Worker()
    worker.offer(first, 0)
    wait_for(lambda: first.inferred == [0], "the inference")
    left = worker.stop(0.1)
    assert left is not None and left.is_alive()
    # The network serves one at a time, also over two workers that follow.
    for _ in range(2):
        worker = Worker(after=left)
        worker.offer(second, 1)
        wait_for(lambda: second.prepared, "the preparation")
        assert worker.stop(0.1) is left
        second.prepared.clear()
    assert second.inferred == [] and second.forgotten == 2
    worker = Worker(after=left)
    worker.offer(second, 2)
    assert first.forgotten == 0
    first.may["infer"].set()
    wait_for(lambda: second.published == [2], "the next worker's answer")
    assert first.forgotten == 1 and first.published == []
    assert worker.stop() is None
