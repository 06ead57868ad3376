"""What came with one stamp is brought together, whatever was lost or came late."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.recordings.matching import StampMatcher


@settings(max_examples=60)
@given(
    lost=st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=12),
    lag=st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)),
)
def test_every_part_arrives_once_in_order(lost: list[set[str]], lag: dict[str, int]) -> None:
    """Three sources in order, each some stamps behind, each losing some parts."""
    sent = [
        (i + lag.get(source, 0), source, i)
        for i, missing in enumerate(lost)
        for source in "abc"
        if source not in missing
    ]
    matcher = StampMatcher(lambda: "abc", waiting=20)
    found = []
    for _, source, i in sorted(sent):
        found += list(matcher.add(source, i, source + str(i)))
    found += list(matcher.finish())
    parts = {m.stamp_ns: set(m.parts.values()) for m in found}
    assert len(parts) == len(found)
    assert parts == {
        i: {f"{s}{i}" for s in "abc" if s not in missing}
        for i, missing in enumerate(lost)
        if len(missing) < 3
    }
    assert [m.number for m in found] == sorted(m.number for m in found)


def test_a_stamp_is_given_as_soon_as_nothing_more_can_come() -> None:
    matcher = StampMatcher(lambda: ("image", "labels"))
    assert list(matcher.add("image", 1, "i1")) == []
    assert matcher.has(1, ["image"]) and not matcher.has(1, ["image", "labels"])
    (first,) = matcher.add("labels", 1, "l1")
    assert first.parts == {"image": "i1", "labels": "l1"}
    assert list(matcher.add("image", 2, "i2")) == []
    assert list(matcher.add("image", 3, "i3")) == []
    second, third = matcher.add("labels", 3, "l3")  # so the labels of 2 never come
    assert (second.parts, third.stamp_ns) == ({"image": "i2"}, 3)


def test_too_many_unfinished_stamps_are_given_up() -> None:
    matcher = StampMatcher(lambda: ("image", "labels"), waiting=3)
    given_up = [m.stamp_ns for i in range(10) for m in matcher.add("image", i, i)]
    assert given_up == list(range(7))


def test_a_recording_that_loops_begins_anew() -> None:
    matcher = StampMatcher(lambda: ("image", "labels"))
    assert list(matcher.add("image", 1, "before")) == []
    (before,) = matcher.add("image", 1, "after")
    assert before.parts == {"image": "before"}
    (after,) = matcher.add("labels", 1, "labels")
    assert after.parts == {"image": "after", "labels": "labels"}
