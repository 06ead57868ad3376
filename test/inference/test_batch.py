"""Batch mode: the answers of one image at a time, in order, with little in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from emu_perception.inference.batch import (
    QUEUED_ANSWERS,
    QUEUED_ITEMS,
    Request,
    ahead,
    predict_each,
)
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.predictor import Predictor


@pytest.fixture
def predictor(make_model: Callable[..., LoadedModel]) -> Iterator[Predictor]:
    found = Predictor(make_model(), "cpu", engine="pytorch")
    yield found
    found.close()


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (40 + i, 60, 3), np.uint8) for i in range(count)]


def test_answers_are_those_of_one_image_at_a_time(predictor: Predictor) -> None:
    given = images(5)
    maps = predictor.available_maps

    def request(index: int) -> Request | None:
        # One item without a question, one of another size.
        return None if index == 2 else Request(given[index], None, maps, (9, 7) if index else None)

    answers = list(predict_each(predictor, range(5), request, warm_up=True))
    assert [answer.item for answer in answers] == list(range(5))
    for index, answer in enumerate(answers):
        if index == 2:
            assert answer.seconds is None and answer.prediction.labels is None
            continue
        size = (9, 7) if index else None
        alone = predictor.predict(given[index], maps=maps, output_size=size)
        assert answer.seconds is not None and answer.seconds > 0
        for name in maps:
            np.testing.assert_array_equal(
                getattr(answer.prediction, name), getattr(alone, name), err_msg=name
            )


def test_an_error_comes_after_the_answers_before_it(predictor: Predictor) -> None:
    given = [*images(2), np.zeros((4, 4), np.uint8)]
    seen = []
    with pytest.raises(ValueError, match="uint8 RGB"):  # noqa: PT012
        for answer in predict_each(predictor, given, lambda i: Request(i, None, {"labels"})):
            seen.append(answer)
    assert len(seen) == 2


def test_few_items_are_alive_however_many_there_are(predictor: Predictor) -> None:
    made_so_far: list[weakref.ref[np.ndarray]] = []

    def made() -> Iterator[np.ndarray]:
        for _ in range(30):
            image = np.zeros((32, 32, 3), np.uint8)
            made_so_far.append(weakref.ref(image))
            yield image

    most = 0
    for _ in predict_each(predictor, made(), lambda i: Request(i, None, {"labels"})):
        gc.collect()
        most = max(most, sum(each() is not None for each in made_so_far))
    # Besides those that wait: one in each thread's hands.
    assert most <= QUEUED_ITEMS + QUEUED_ANSWERS + 4


def test_leaving_early_ends_the_threads(predictor: Predictor) -> None:
    drawn = []

    def endless() -> Iterator[np.ndarray]:
        try:
            while True:
                drawn.append(1)
                yield np.zeros((32, 32, 3), np.uint8)
        finally:
            drawn.append(0)

    source = endless()
    answers = predict_each(predictor, source, lambda i: Request(i, None, {"labels"}))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    count = len(drawn)
    source.close()
    assert drawn[count:] == [0]  # not running, and nothing more was drawn


def test_a_thread_ahead_hands_on_items_and_errors() -> None:
    def failing() -> Iterator[int]:
        yield from range(10)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):  # noqa: PT012
        for item in ahead(failing(), 2):
            seen.append(item)
    assert seen == list(range(10))
