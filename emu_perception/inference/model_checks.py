"""Checks of a model file's header, before anything is built."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emu_perception.yaml_file import check_extent

DIGEST = "weights_sha256"
"""Key of the digest of the weights, next to the description."""
MAX_HEADER_BYTES = 32 << 20
"""Limit of the safetensors header, which names every tensor."""
MAX_DESCRIPTION = 1_000_000
"""Characters of the description in it."""
MAX_INPUT_SIDE, MAX_INPUT_PIXELS = 4096, 1 << 22
"""Limits of the input size."""
MAX_NUMBER = 65_536
"""Limit of a numeric argument."""
MAX_COUNTS = {"members": 100, "samples": 1000}
"""Arguments that multiply the time of an inference."""
RESERVED = ("architecture", "backbone", "classes", "tasks")
"""Fields of the description that builders take too: no arguments."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def check_header_size(path: Path) -> None:
    """Refuse a safetensors file whose header would take the memory.

    Raises:
        ValueError: the first eight bytes announce a header that is too long.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MAX_HEADER_BYTES < length <= path.stat().st_size:
        raise ValueError(f"its header has {length} bytes, at most {MAX_HEADER_BYTES} are read")


def parse_description(description: str) -> tuple[Any, str | None]:
    """The values of a description's JSON, and the digest of the weights where it has one.

    Raises:
        ValueError: no JSON, too long or too deeply nested.
    """
    if len(description) > MAX_DESCRIPTION:
        raise ValueError(f"it has {len(description)} characters, at most {MAX_DESCRIPTION}")
    try:
        values = json.loads(description)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_extent(values, "it")
    expected = values.pop(DIGEST, None) if isinstance(values, dict) else None
    return values, expected


def reason(error: ValueError) -> str:
    """The problems of a validation without pydantic's explanations."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))} {problem['msg']}".strip() for problem in problems[:3]
    )


def check_description(backbone: str, input_size: tuple[int, int], arguments: Any) -> None:
    """Refuse a description of a network that is too large.

    Raises:
        ValueError: the backbone is no model's name, the input size or an argument is out of range.
    """
    if not _NAME.fullmatch(backbone):
        raise ValueError(f"backbone must be the name of a timm model, got '{backbone}'")
    if max(input_size) > MAX_INPUT_SIDE or math.prod(input_size) > MAX_INPUT_PIXELS:
        raise ValueError(
            f"input_size must be at most {MAX_INPUT_SIDE} a side and {MAX_INPUT_PIXELS} pixels, "
            f"got {input_size[0]} x {input_size[1]}"
        )
    for name, value in arguments.items():
        if name in RESERVED:
            raise ValueError(f"arguments must not name '{name}': it has a field of its own")
        _check_argument(name, value, MAX_COUNTS.get(name, MAX_NUMBER))


def _check_argument(name: str, value: Any, limit: int) -> None:
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) > 64:
        raise ValueError(f"argument '{name}' has {len(values)} entries, at most 64 are allowed")
    for each in values:
        if isinstance(each, str):
            if len(each) > 100:
                raise ValueError(f"argument '{name}' has {len(each)} characters, at most 100")
        elif isinstance(each, int | float):
            if not abs(each) <= limit:
                raise ValueError(f"argument '{name}' must be at most {limit}, got {each}")
        elif each is not None:
            raise ValueError(
                f"argument '{name}' must be a number, a text, true, false or a list of these"
            )
