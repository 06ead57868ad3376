"""YAML that people write: read with limits, refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from emu_perception.text import one_line

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000
"""Keys, values and list entries, with every use of an alias counted."""
MAX_DEPTH = 50
"""Levels of nesting."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: no UTF-8, no YAML, too large or too deeply nested.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > 4 * MAX_CHARACTERS:
        raise ValueError(
            f"{path} is too large: YAML files have at most {MAX_CHARACTERS} characters"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: YAML.
        where: names the text in errors.

    Raises:
        ValueError: no YAML, too large or too deeply nested.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{where} is too large: at most {MAX_CHARACTERS} characters are read")
    try:
        value = yaml.safe_load(text)
        check_extent(value, where)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {one_line(str(error), 200)}") from error
    except RecursionError as error:
        raise ValueError(_too_deep(where)) from error
    return value


def check_extent(value: Any, where: str) -> None:
    """Refuse nested values that would take too long to walk through: aliases multiply them.

    Raises:
        ValueError: more than `MAX_VALUES` values or more than `MAX_DEPTH` levels.
    """
    left, level = MAX_VALUES, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            if isinstance(item, dict | list):
                left -= len(item)
                if left < 0:
                    raise ValueError(f"{where} holds more than {MAX_VALUES} values")
                below.extend(children)
        if not below:
            return
        level = below
    raise ValueError(_too_deep(where))


def _too_deep(where: str) -> str:
    return f"{where} is nested too deeply: at most {MAX_DEPTH} levels are read"
