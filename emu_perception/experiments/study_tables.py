"""Tables of documents, made from the results of studies.

A study writes its figures to `results/NAME.json` (`StudyConfig.results`). Where a Markdown page has

    <!-- table: NAME -->
    <!-- end of table -->

its table stands between the two lines. `NAME rows` and `NAME differences` are a part of it; `index`
is the list of all studies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emu_perception.experiments.study_report import differences_table, markdown, rows_table
from emu_perception.markdown import markdown_table

_PLACE = re.compile(
    r"^<!-- table: (?P<name>\S+)(?: (?P<part>\S+))? -->\n(?P<table>.*?)^<!-- end of table -->$",
    re.MULTILINE | re.DOTALL,
)
_OPENING = re.compile(r"^<!-- table:", re.MULTILINE)
_PARTS = {None: markdown, "rows": rows_table, "differences": differences_table}
_KEYS = {"rows", "differences", "unfinished"}
INDEX = "index"


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of all studies, by name.

    Args:
        folder: with a JSON file per study.

    Raises:
        ValueError: there are none, or a file holds something else.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON file: {error}") from None
        if not isinstance(content, dict) or not content.keys() >= _KEYS:
            raise ValueError(
                f"{path} does not hold the results of a study: it needs {', '.join(sorted(_KEYS))}"
            )
        found[path.stem] = content
    if not found:
        raise ValueError(f"{folder} holds no results of studies (*.json); `emu study` writes them")
    return found


def index(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The studies as a table: question, rows, seeds, command, and whether all rows are finished."""
    heads = ["study", "question", "rows", "seeds", "command", "state"]
    lines = []
    for name, study in results.items():
        about = study.get("about", {})
        missing = len(study["unfinished"])
        lines.append(
            [
                name,
                about.get("title") or "–",
                str(len(study["rows"])),
                str(len(about.get("seeds", []))),
                f"`{about['command']}`" if about.get("command") else "–",
                f"{missing} not finished" if missing else "finished",
            ]
        )
    return markdown_table(heads, lines)


def fill(page: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """A page with its tables made anew.

    Args:
        page: Markdown.
        results: of `read_results`.

    Raises:
        ValueError: a place names no study or part, or has no end.
    """
    if len(_OPENING.findall(page)) != len(_PLACE.findall(page)):
        raise ValueError(
            "a '<!-- table: NAME -->' has no '<!-- end of table -->' on a line of its own"
        )

    def table(place: re.Match[str]) -> str:
        name, part = place["name"], place["part"]
        if name == INDEX:
            text = index(results)
        elif name not in results:
            raise ValueError(f"there is no study '{name}'; there are {', '.join(results)}")
        elif part not in _PARTS:
            raise ValueError(f"a table has the parts rows and differences, not '{part}'")
        else:
            text = _PARTS[part](results[name])
        opening = f"<!-- table: {name} {part} -->" if part else f"<!-- table: {name} -->"
        return f"{opening}\n\n{text}\n<!-- end of table -->"

    return _PLACE.sub(table, page)
