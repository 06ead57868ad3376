"""Recordings of anything are read back as they were written, and damage is never believed."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.recordings import BagError, BagReader, BagWriter
from emu_perception.recordings.reader import CAMERA_INFO, IMAGE

MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([("/a", IMAGE), ("/a/b", IMAGE), ("/info", CAMERA_INFO)]),
        st.integers(0, 2**40),
        st.binary(min_size=4, max_size=3000).map(lambda data: b"\0\1\0\0" + data),
    ),
    min_size=1,
    max_size=12,
)
STORAGES = st.sampled_from(["mcap", "sqlite3"])


def write(path: Path, messages: list, storage: str, compress: bool) -> Path:  # type: ignore[type-arg]
    with BagWriter(path, storage=storage, compress=compress) as bag:  # type: ignore[arg-type]
        for (topic, msgtype), time_ns, data in messages:
            bag.write_cdr(topic, msgtype, data, time_ns)
    (file,) = (each for each in path.iterdir() if each.suffix != ".yaml")
    return file


@settings(max_examples=25)
@given(messages=MESSAGES, storage=STORAGES, compress=st.booleans())
def test_what_is_written_is_read_back_by_time(
    messages: list,  # type: ignore[type-arg]
    storage: str,
    compress: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drive"
        write(path, messages, storage, compress)
        with BagReader(path) as bag:
            assert not bag.damage
            found = [(m.topic, m.msgtype, m.time_ns, bytes(m.data)) for m in bag.messages()]
            counts = {topic.name: topic.count for topic in bag.topics}
    expected = [(*kind, time_ns, data) for kind, time_ns, data in messages]
    assert sorted(found) == sorted(expected)
    assert [each[2] for each in found] == sorted(each[2] for each in expected)
    topics = {kind[0] for kind, _, _ in messages}
    assert counts == {t: sum(kind[0] == t for kind, _, _ in messages) for t in topics}


@settings(max_examples=40)
@given(
    messages=MESSAGES,
    storage=STORAGES,
    compress=st.booleans(),
    left=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
)
def test_a_damaged_recording_is_read_in_part_or_refused(
    messages: list,  # type: ignore[type-arg]
    storage: str,
    compress: bool,
    left: float,
    changes: list[tuple[float, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder) / "drive", messages, storage, compress)
        data = bytearray(file.read_bytes())
        for place, value in changes:
            data[int(place * len(data))] = value
        file.write_bytes(data[: int(left * len(data))])
        found = []
        with suppress(BagError), BagReader(file) as bag:
            found += bag.messages()
    if not changes:
        known = [(*kind, time_ns, data) for kind, time_ns, data in messages]
        assert all((m.topic, m.msgtype, m.time_ns, bytes(m.data)) in known for m in found)
