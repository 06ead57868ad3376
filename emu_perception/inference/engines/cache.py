"""Compiled forms on disk, so that a runtime compiles a network once per machine, not per start."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from emu_perception.atomic import replacing
from emu_perception.inference.model_file import LoadedModel

VARIABLE = "EMU_CACHE_DIR"
"""Environment variable that names another folder; empty: nothing is kept."""
LIMIT_BYTES = 2_000_000_000
"""Size limit; the least recently used files are removed first."""
SUFFIX = ".blob"
IMAGE_SIZES = "image_sizes.json"
LARGEST_IMAGE = 1 << 24
"""Pixels of a remembered size; more is no camera's, and a warm-up for it would take the memory."""
STEEPEST = 16
"""Longer side over the shorter one of a remembered size."""
STALE_SECONDS = 3600.0
"""Age at which an unfinished file is one of a process that was killed."""
_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path | None:
    """Folder of the compiled networks; None if the user disabled it.

    Raises:
        ValueError: the variable's value begins with the home folder of an unknown user.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        try:
            return Path(named).expanduser() if named else None
        except RuntimeError as error:
            raise ValueError(
                f"{VARIABLE} is '{named}', a home folder of an unknown user: give a full path"
            ) from error
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "emu_perception"


class EngineCache:
    """The entries of one model on one machine by one runtime.

    Each file begins with the SHA-256 of its entry. A folder that cannot be written, or a damaged
    entry, costs time and nothing else.

    Args:
        model: by the content of its weights and its description, not by its file's name.
        runtime: names and versions of all that compiled forms depend on: runtime, device, settings.
    """

    def __init__(self, model: LoadedModel, **runtime: object) -> None:
        self._folder = cache_folder()
        self._key = _digest(model, runtime) if self._folder is not None else ""

    def read(self, name: str) -> bytes | None:
        """An entry, such as `network-480x640`; None where there is none.

        A damaged one is deleted.
        """
        path = self._path(name)
        if path is None:
            return None
        try:
            stored = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        data = stored[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != stored[:_DIGEST_BYTES]:
            self.delete(name)
            return None
        return data

    def write(self, name: str, make: Callable[[], bytes]) -> None:
        """Keep an entry; `make` is not called where nothing is kept."""
        path = self._path(name)
        if path is None:
            return
        data = make()
        if _write(path, hashlib.sha256(data).digest() + data):
            self._prune(path)

    def delete(self, name: str) -> None:
        """Forget an entry that cannot be used."""
        path = self._path(name)
        if path is not None:
            with suppress(OSError):
                path.unlink()

    def holds(self, prefix: str) -> bool:
        """Whether there is an entry whose name begins so."""
        return self._folder is not None and any(self._folder.glob(f"{self._key}-{prefix}*{SUFFIX}"))

    def _path(self, name: str) -> Path | None:
        return self._folder / f"{self._key}-{name}{SUFFIX}" if self._folder else None

    def _prune(self, newest: Path) -> None:
        assert self._folder is not None
        left = LIMIT_BYTES
        with suppress(OSError):  # another process may prune as well
            entries = sorted(
                ((path.stat().st_mtime, path.stat().st_size, path) for path in self._entries()),
                reverse=True,
            )
            for _, size, path in entries:
                left -= size
                if left < 0 and path != newest:
                    path.unlink(missing_ok=True)
            for path in self._folder.glob("*.partial"):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)

    def _entries(self) -> list[Path]:
        assert self._folder is not None
        return list(self._folder.glob(f"*{SUFFIX}"))


def _digest(model: LoadedModel, runtime: dict[str, object]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(runtime, sort_keys=True, default=str).encode())
    digest.update(model.spec.model_dump_json().encode())
    for name, tensor in sorted(model.weights().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def remember_image_size(model: Path, size: tuple[int, int]) -> None:
    """Note the height and width of the images that a model file is used on."""
    folder = cache_folder()
    if folder is not None:
        sizes = {**_image_sizes(folder), str(model.resolve()): list(size)}
        _write(folder / IMAGE_SIZES, json.dumps(sizes, indent=2).encode())


def recall_image_size(model: Path) -> tuple[int, int] | None:
    """The size noted last for a model file: what to warm up for; None where there is none."""
    folder = cache_folder()
    size = _image_sizes(folder).get(str(model.resolve())) if folder else None
    match size:
        case [int(height), int(width)] if _is_plausible(height, width):
            return height, width
    return None


def _is_plausible(height: int, width: int) -> bool:
    short, long = sorted((height, width))
    return short > 0 and long <= STEEPEST * short and short * long <= LARGEST_IMAGE


def _image_sizes(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / IMAGE_SIZES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last one of 200,000 brackets
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, data: bytes) -> bool:
    """Whether it could be written; another process sees all of it or nothing."""
    try:
        with replacing(path) as partial:
            partial.write_bytes(data)
    except OSError:  # no space, no permission
        return False
    return True
