"""Files and folders that are whole or not there, whatever cuts the writing short."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`; its file replaces `path` once it is on disk.

    Several processes may do so at once: the last one wins. The folder is created. What is no
    ordinary file, such as `/dev/stdout`, is written to as it is.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors' writer lets only the owner read
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def begin_folder(path: Path) -> Path:
    """A place for a new folder, in a hidden folder next to `path`; call `finish_folder` later.

    What a process that was killed left there is deleted.
    """
    path = path.resolve()
    hidden = path.with_name(f".{path.name}.partial")
    if hidden.exists():
        shutil.rmtree(hidden)
    hidden.mkdir(parents=True)
    return hidden / path.name


def finish_folder(partial: Path, path: Path, *, replace: bool = False) -> None:
    """Put a folder of `begin_folder` into its place, synchronised to disk.

    Args:
        partial: the folder.
        path: its place.
        replace: delete an earlier folder there; else only an empty one may be there.

    Raises:
        OSError: `path` is in use, or the disk fails.
    """
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    hidden, path = partial.parent, path.resolve()
    if path.exists() and replace:
        path.rename(hidden / f"{path.name}.before")
    elif path.exists():
        path.rmdir()
    partial.rename(path)
    shutil.rmtree(hidden)


def discard_folder(partial: Path) -> None:
    """Delete a folder of `begin_folder`."""
    shutil.rmtree(partial.parent, ignore_errors=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which replaces `path` unless the block is left by an error."""
    partial = begin_folder(path)
    try:
        partial.mkdir()
        yield partial
        finish_folder(partial, path)
    except BaseException:
        discard_folder(partial)
        raise
