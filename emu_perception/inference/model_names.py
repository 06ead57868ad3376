"""Names of model files: a path with or without suffix, or a shipped model."""

from __future__ import annotations

from pathlib import Path

from emu_perception.inference import deployment
from emu_perception.resources import find_resource
from emu_perception.text import one_line

DEFAULT_MODEL = "street_lite2"
SHORT_NAMES = {"": DEFAULT_MODEL, "street": DEFAULT_MODEL, "room": "room_lite2"}
"""Files of the names that stay when a better model replaces the file; "" is the default."""
SUFFIXES = (deployment.SUFFIX, ".safetensors")
"""Suffixes of model files; a name without suffix means the first that exists."""


class ModelFileError(ValueError):
    """A model file that is missing, damaged, or not one of this package.

    The message is one line of at most `text.LINE_LIMIT` printable characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def shipped_models() -> list[str]:
    """Names of the shipped models, short names first."""
    try:
        folder = find_resource("models")
    except FileNotFoundError:
        return []
    files = sorted({p.stem for p in folder.glob("*") if p.suffix in SUFFIXES})
    return [n for n, file in SHORT_NAMES.items() if n and file in files] + files


def resolve_model_path(name: str | Path, *, weights: bool = False) -> Path:
    """The path of a file, or of a shipped model by its name; empty means the default model.

    Args:
        name: a file with or without its suffix, or a shipped model's name.
        weights: prefer the `.safetensors` file to the `.onnx` file of the same name.

    Raises:
        ModelFileError: there is no such file.
    """
    given = Path(name).expanduser() if str(name) else None
    if given is not None and given.is_file():
        return given
    suffixes = SUFFIXES[::-1] if weights else SUFFIXES
    found = None if given is None else _find(given, suffixes)
    if found is None and (given is None or len(given.parts) == 1):
        found = _find_shipped(SHORT_NAMES.get(str(name), str(name)), suffixes)
    if found is None:
        known = ", ".join(shipped_models()) or "none"
        raise ModelFileError(f"there is no model file '{name}' (shipped models: {known})")
    return found


def _find_shipped(name: str, suffixes: tuple[str, ...]) -> Path | None:
    try:
        return _find(find_resource("models") / name, suffixes)
    except FileNotFoundError:
        return None


def _find(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    candidates = [path, *(path.with_name(path.name + suffix) for suffix in suffixes)]
    return next((each for each in candidates if each.is_file()), None)
