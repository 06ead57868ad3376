"""Hostile recordings end in a line within bounded time and memory, and are never believed."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from emu_perception.recordings import BagError, BagReader
from emu_perception.recordings.image_messages import rgb
from emu_perception.recordings.limits import (
    LimitError,
    check_index,
    check_metadata,
    check_sizes,
    unpack_lz4,
    unpack_zstd,
)
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.recording import ImageDecoder
from emu_perception.reliability import recordings

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """What is not refused in time ends in a MemoryError instead of the machine."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def read(path: Path) -> tuple[int, list[str]]:
    """How many images can be read, and all lines about what is wrong."""
    problems = Problems()
    try:
        with BagReader(path) as bag:
            decoder = ImageDecoder(bag, None, problems)
            images = sum(1 for _ in decoder.images())
    except BagError as error:
        return 0, [str(error)]
    return images, [each for found in problems.values().values() for each in found["examples"]]


@pytest.mark.parametrize(
    ("name", "images", "words"),
    [
        ("zstd_bomb.mcap", 0, "declares 21474836480 bytes, at most 268435456"),
        ("zstd_bomb_that_lies.mcap", 0, "unpacks to more than"),
        ("nested.mcap", 0, "a chunk holds another chunk"),
        ("many_bombs.mcap", 0, "and more, at most"),
        ("overlapping.mcap", 0, "overlap in time"),
        ("no_text.mcap", 0, "damaged"),
        ("long_record.mcap", 0, "damaged"),
        ("own_definition.mcap", 1, ""),
        ("endless_view.db3", 0, "messages is a view, expected a table"),
        ("computed.db3", 0, "the table messages has computed columns"),
        ("repeated_pages.db3", 0, "more rows than a file of its size can hold"),
        ("null_topic.db3", 0, "no name"),
        ("null_data.db3", 0, "without data"),
        ("text_times.db3", 0, ""),
        ("references", 3, "metadata.yaml holds references"),
        ("deep_metadata", 3, "nested too deeply"),
        ("text_duration", 3, ""),
        ("null_name", 3, "no name"),
    ],
)
def test_hostile_recordings_are_refused_in_a_line(
    tmp_path: Path, name: str, images: int, words: str
) -> None:
    path = recordings.corpus()[name](tmp_path / name)
    found, lines = read(path)
    assert found == images, lines
    assert any(words in line for line in lines) or not words, lines
    assert lines or name == "own_definition.mcap"
    for line in lines:
        assert len(line.replace(str(tmp_path), "")) <= 300 and "\n" not in line


def test_every_case_is_tested() -> None:
    marks = test_hostile_recordings_are_refused_in_a_line.pytestmark  # type: ignore[attr-defined]
    (cases,) = (mark.args[1] for mark in marks if mark.name == "parametrize")
    assert {case[0] for case in cases} == set(recordings.corpus())


def test_unpacking_stops_at_its_limit() -> None:
    assert unpack_zstd(recordings.zstd_bomb(1 << 20), 1 << 20) == bytes(1 << 20)
    with pytest.raises(LimitError, match="more than 1000 bytes"):
        unpack_zstd(recordings.zstd_bomb(1 << 40), 1000)
    lz4 = pytest.importorskip("lz4.frame")
    packed = lz4.compress(bytes(1 << 23))
    assert unpack_lz4(packed) == bytes(1 << 23)
    with pytest.raises(LimitError, match="more than 1000 bytes"):
        unpack_lz4(packed, 1000)


def test_sound_recordings_are_within_the_limits(tmp_path: Path) -> None:
    for storage in ("mcap", "sqlite3"):
        for compress in (False, True):
            path = tmp_path / f"{storage}{compress}"
            recordings.write_recording(path, storage, compress)
            with BagReader(path) as bag:
                assert bag.damage == ()
                assert [rgb(bag.decode(m)).shape for m in bag.messages()] == [(8, 16, 3)] * 3
            assert check_metadata(path / "metadata.yaml") == []
    check_sizes([1 << 28] * 4, 1 << 24)
    check_index(object(), 0)
