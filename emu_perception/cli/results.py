"""`emu results`: the tables of documents, from the results of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def results(
    pages: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Markdown files whose tables are filled; without one, the studies are listed.",
            exists=True,
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Folder of the studies' results, a JSON file each.")
    ] = Path("results"),
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail where a table is out of date.")
    ] = False,
) -> None:
    """Fill the tables of Markdown pages from the results that `emu study` wrote.

    A table stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->`; NAME is
    that of a file in the folder, or `index`.
    """
    from emu_perception.atomic import write_text
    from emu_perception.experiments.study_tables import fill, index, read_results

    found = read_results(folder)
    if not pages:
        typer.echo(index(found))
        return
    outdated = []
    for page in pages:
        before = page.read_text(encoding="utf-8")
        try:
            after = fill(before, found)
        except ValueError as error:
            raise ValueError(f"{page}: {error}") from None
        if after != before:
            outdated.append(page)
            if not check:
                write_text(page, after)
                typer.echo(f"{page}: filled")
    if check and outdated:
        names = ", ".join(map(str, outdated))
        raise ValueError(f"tables are out of date in {names}: run `emu results {names}`")
