"""Locations of the package's files: label sets, configurations, models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = "emu_perception"


def share_directories() -> list[Path]:
    """Folders that may hold `config/`, `launch/` and `models/`, the most specific first.

    A source tree (also an editable install, which copies no data files) comes before the share
    folder of a ROS workspace, and that before the one of the Python environment.
    """
    source = Path(__file__).resolve().parent.parent
    candidates = [source] if (source / "package.xml").is_file() else []
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    # site-packages lies three or four folders below the prefix it was installed to.
    prefixes += [str(parent) for parent in Path(__file__).resolve().parents[2:6]]
    prefixes.append(sys.prefix)
    candidates += [Path(prefix) / "share" / PACKAGE for prefix in prefixes]
    return [c for c in dict.fromkeys(candidates) if c.is_dir()]


def find_resource(*parts: str) -> Path:
    """The path of a shipped file or folder, such as `find_resource("config", "labels")`.

    Raises:
        FileNotFoundError: it is in none of the places where the package keeps its files.
    """
    for directory in share_directories():
        path = directory.joinpath(*parts)
        if path.exists():
            return path
    looked = ", ".join(str(d) for d in share_directories()) or "no share folder at all"
    raise FileNotFoundError(
        f"{'/'.join(parts)} is not among the package's files (looked in {looked})"
    )
