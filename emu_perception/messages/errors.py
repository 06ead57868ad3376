"""Kinds of invalid input, with the names under which diagnostics count them."""

from __future__ import annotations

from enum import Enum

from emu_perception.text import one_line


class BadInput(str, Enum):
    """Kinds of bad input; the values are the names in diagnostics."""

    ENCODING = "encoding"
    LAYOUT = "step or data length"
    EMPTY = "zero size"
    TOO_LARGE = "too large"
    PROPORTIONS = "proportions"
    CORRUPT = "corrupt image file"
    SIZE_CHANGE = "size change"
    CAMERA_INFO = "camera_info"
    TRANSFORM = "transform"
    MODEL_FILE = "model file"
    PARAMETER = "parameter"
    INFERENCE = "inference"


class InputError(ValueError):
    """Input that cannot be used; the message states what, where and what was expected."""

    def __init__(self, kind: BadInput, message: str) -> None:
        super().__init__(one_line(message))  # it may quote a field, megabytes long
        self.kind = kind
