"""Text of strangers: no terminal escapes, one line, limited length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emu_perception.text import LINE_LIMIT, one_line, printable


def test_escapes_are_shown_and_not_obeyed() -> None:
    assert printable("red \x1b[31m\u202eabc\x07") == "red \\x1b[31m\\u202eabc\\x07"
    assert printable("Ein Maß: 5 µm, 日本 ×\n\t") == "Ein Maß: 5 µm, 日本 ×\n\t"
    assert one_line("first:\n  second\r\n\nthird  \x1b]0;x\x07") == (
        "first: second; third \\x1b]0;x\\x07"
    )


@given(st.text(alphabet=st.characters(), max_size=3000))
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= LINE_LIMIT
    assert "\n" not in line and printable(line) == line


def test_both_ends_of_a_long_text_are_kept() -> None:
    line = one_line(f"/models/a.safetensors: {'x' * 1_500_000} at the end")
    assert line.startswith("/models/a.safetensors: x") and line.endswith("at the end")
    assert len(line) == LINE_LIMIT
