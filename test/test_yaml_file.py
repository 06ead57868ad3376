"""YAML with limits: what is refused is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu_perception.yaml_file import MAX_CHARACTERS, MAX_DEPTH, parse_yaml, read_yaml


def test_values_and_aliases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {b: [1, 2]}\nc: *x\n", encoding="utf-8")
    assert read_yaml(path) == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


def _bomb() -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 900 + "]" * 900, "nested too deeply"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested too deeply"),
        ("&a [*a]", "nested too deeply"),
        (_bomb(), "more than 100000 values"),
        ("a: [1", "is not YAML"),
        ("a: \x1b[31m", "is not YAML"),
        ("x" * (MAX_CHARACTERS + 1), "too large"),
    ],
    ids=["900 deep", "deep", "itself", "billion laughs", "cut off", "escape", "large"],
)
def test_what_cannot_be_used_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        parse_yaml(text, "labels.yaml")
    message = str(refused.value)
    assert "labels.yaml" in message and "\n" not in message and len(message) <= 300
    assert "\x1b" not in message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not YAML"):
        read_yaml(path)
