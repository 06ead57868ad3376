"""The fuzzer: a small run finds nothing, and what is wrong is found."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from emu_perception.inference.engines.cache import VARIABLE
from emu_perception.messages.images import rgb_from_image
from emu_perception.reliability import fuzz as module
from emu_perception.reliability.fuzz import FILES, MESSAGES, fuzz
from emu_perception.reliability.judge import Case, Findings
from emu_perception.reliability.messages import BOMBS, compressed_case, image_message, reference_rgb


def test_a_small_run_finds_nothing() -> None:
    before = os.environ.get(VARIABLE)
    report = fuzz(messages=300, files=160, seed=1)
    assert report.failures == []
    assert report.total == 460
    assert set(report.cases) == {*MESSAGES, *FILES}
    for name in MESSAGES:
        assert all(report.cases[name].values()), name
    assert report.peak_bytes <= 1.5 * report.normal_bytes
    assert os.environ.get(VARIABLE) == before


def test_a_case_can_be_repeated_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def make(name: str, index: int, *rest: object) -> Case:
        seen.append((name, index))
        return Case(lambda: None)

    monkeypatch.setattr(module, "_make", make)
    assert fuzz(messages=30, files=8, only="image:3").total == 1
    assert fuzz(messages=30, files=10, only="cache").total == 2
    assert seen == [("image", 3), ("cache", 0), ("cache", 1)]
    with pytest.raises(ValueError, match="no target 'pictures', expected one of image"):
        fuzz(1, 1, only="pictures")


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (Case(lambda: 1 / 0), "crash"),
        (Case(lambda: _raise(ValueError(""))), "message"),
        (Case(lambda: _raise(ValueError("x" * 301))), "message"),
        (Case(lambda: _raise(ValueError("a\nb"))), "message"),
        (Case(lambda: _raise(ValueError("\x1b[31mred"))), "message"),
        (Case(lambda: 1, lambda answer: "it is 1"), "wrong answer"),
        (Case(lambda: 1, lambda answer: str(1 / 0)), "wrong answer"),
    ],
)
def test_each_kind_of_failure_is_found(case: Case, kind: str) -> None:
    findings = Findings()
    findings.judge("image", 7, case)
    (failure,) = findings.failures
    assert (failure.case, failure.kind) == ("image:7", kind)


def test_a_refused_sound_input_is_found() -> None:
    findings = Findings()
    findings.judge("image", 0, Case(lambda: _raise(ValueError("it is wrong")), sound=True))
    assert [(f.kind, f.text) for f in findings.failures] == [
        ("wrong answer", "a sound input was refused: it is wrong")
    ]


def test_a_refusal_and_an_answer_are_no_failures() -> None:
    findings = Findings()
    findings.judge("image", 0, Case(lambda: _raise(ValueError("it is empty"))))
    findings.judge("image", 1, Case(lambda: 1, lambda answer: None))
    assert not findings.failures
    assert findings.refused["image"] == findings.answered["image"] == 1


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_perception.reliability.judge._PATIENCE", 0.05)
    findings = Findings()
    findings.judge("image", 0, Case(lambda: time.sleep(5)))
    assert [f.kind for f in findings.failures] == ["hang"]
    findings.judge("image", 1, Case(lambda: sum(range(100)), seconds=-1.0))
    assert [f.kind for f in findings.failures] == ["hang", "hang"]


def test_wrong_pixels_are_found(make_model, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from emu_perception.inference.predictor import Predictor

    predictor = Predictor(make_model(), device="cpu", engine="pytorch")
    monkeypatch.setattr(
        "emu_perception.reliability.messages.rgb_from_image",
        lambda message, most: np.zeros_like(rgb_from_image(message, most)),
    )
    findings = Findings()
    for index in range(1, 40):
        rng = np.random.default_rng(index)
        findings.judge("image", index, module.image_case(rng, index, predictor))
    assert {f.kind for f in findings.failures} == {"wrong answer"}
    # Bombs come first.
    rng = np.random.default_rng(0)
    case = compressed_case(rng, len(BOMBS) - 1, predictor)
    with pytest.raises(ValueError, match="image"):
        case.run()


def test_the_reference_agrees_with_what_was_encoded() -> None:
    sound = 0
    for seed in range(200):
        message = image_message(np.random.default_rng(seed))
        if message.encoding.rstrip("168") in ("rgb", "bgr", "rgba", "bgra", "mono"):
            found = reference_rgb(message)
            sound += found is not None
            message.data += b"\0"
            assert reference_rgb(message) is None
    assert sound > 20
