"""`emu data`: list data sets and check their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu_perception.cli.options import DataOptions, parse_options

app = typer.Typer(help="List and check data sets.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the data sets with their splits and options."""
    from emu_perception.data import dataset_entry, dataset_names

    for name in dataset_names():
        entry = dataset_entry(name)
        options = ", ".join(entry.options) or "none"
        typer.echo(
            f"{name}: {entry.summary} Report on: {entry.evaluation_split}. Options: {options}"
        )


@app.command()
def check(
    dataset: Annotated[
        str,
        typer.Option("--dataset", "-d", help="Name of the data set; emu data list prints them."),
    ],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    option: DataOptions = None,
) -> None:
    """Read every file of a data set, list what is missing or broken, and count what it holds."""
    from rich.progress import Progress

    from emu_perception.data import build_dataset, check_dataset, dataset_entry
    from emu_perception.data.contents import count_contents

    options = parse_options(option)
    with Progress(transient=True) as bars:
        task = bars.add_task("Reading", total=None)

        def follow(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        problems = check_dataset(dataset, root, follow, **options)
    for problem in problems:
        typer.echo(f"{'error' if problem.fatal else 'note'}: {problem}")
    broken = sum(problem.fatal for problem in problems)
    if broken:
        typer.echo(f"{broken} problems")
        raise typer.Exit(1)
    for split in dataset_entry(dataset).splits:
        samples = build_dataset(dataset, root, split, **options)
        if samples.stored() < len(samples):  # counting would render the rest
            continue
        found = count_contents(samples)
        labelled = "".join(f", {count} with {task}" for task, count in found.labelled.items())
        sizes = [f"{width} x {height}" for height, width in found.sizes]
        shown = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes from {sizes[0]}"
        typer.echo(
            f"{split}: {found.images} images{labelled}, {found.cameras} with a camera, {shown}"
        )
        for title, fraction in found.classes.items():
            typer.echo(f"  {fraction:6.1%}  {title}")
    typer.echo("nothing is broken")


@app.command()
def stereo(
    root: Annotated[
        Path, typer.Argument(help="Folder with images, poses.txt and intrinsics.json.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new data set.")],
    every: Annotated[int, typer.Option(min=1, help="Take every n-th frame.")] = 6,
) -> None:
    """Compute semi-dense metric depth of a video with known camera poses.

    The result is a data set of the kind `folder`. An interrupted run goes on where it stopped.
    """
    from rich.progress import Progress

    from emu_perception.data.posed_video import write_depth

    with Progress(transient=True) as bars:
        task = bars.add_task("Matching", total=None)

        def follow(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        count = write_depth(root, out, every, progress=follow)
    typer.echo(f"depth of {count} frames is in {out}")
