"""Text from files and messages, made fit for one line of a log or a terminal."""

from __future__ import annotations

import unicodedata

LINE_LIMIT = 300
"""Characters of a refusal."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a terminal obeys or that change the order of what is shown."""


def printable(text: str) -> str:
    """Text without control characters: they are shown as escapes, such as `\\x1b`.

    Line feeds and tabulators stay.
    """
    return "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in _HIDDEN
        else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in text
    )


def shortened(text: str, limit: int) -> str:
    """Text of at most `limit` characters; the middle of a longer one is left out."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 3]}...{text[-tail:]}"


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Printable text on one line of at most `limit` characters."""
    # A message may hold megabytes: what is cut off anyway is not looked at.
    lines = shortened(text, 4 * limit).split("\n")
    joined = "; ".join(line for part in lines if (line := " ".join(part.split())))
    return shortened(printable(joined.replace(":; ", ": ")), limit)
