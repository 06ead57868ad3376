"""`emu fuzz`: hostile messages and files against this installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fuzz(
    messages: Annotated[
        int, typer.Option(min=0, help="Image, CompressedImage and CameraInfo messages.")
    ] = 3000,
    files: Annotated[
        int, typer.Option(min=0, help="Model files, configurations, recordings, cache entries.")
    ] = 300,
    dds: Annotated[
        int, typer.Option(min=0, help="Messages to a running node over DDS; needs rclpy.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cases.")] = 0,
    only: Annotated[
        str, typer.Option(help="TARGET, or TARGET:INDEX to repeat a single case.")
    ] = "",
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Feed hostile messages and files to the package and judge how it meets each.

    Each is refused with one line, or answered as a reference answers it; none may crash, take more
    than its time, or take memory. The exit status is 1 if a case fails.
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from emu_perception.evaluation.result import write_json
    from emu_perception.reliability.fuzz import fuzz as run

    console = Console()
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("Fuzzing", total=messages + files + dds)
        report = run(
            messages,
            files,
            seed,
            dds=dds,
            only=only,
            progress=lambda done: bars.update(task, completed=done),
        )
    shown = Table("target", "answered", "refused", "slowest (CPU s)", title=f"Seed {seed}")
    for name, counts in report.cases.items():
        slowest = f"{report.slowest.get(name, 0.0):.2f}"
        shown.add_row(name, str(counts["answered"]), str(counts["refused"]), slowest)
    console.print(shown)
    peak, normal = report.peak_bytes >> 20, report.normal_bytes >> 20
    console.print(f"Peak memory {peak} MB, that of normal work {normal} MB.")
    for failure in report.failures[:20]:
        typer.echo(f"{failure.kind} in {failure.case}: {failure.text}")
    console.print(f"{report.total} cases, {len(report.failures)} failures.")
    if json is not None:
        write_json(json, report.values())
    if report.failures:
        raise typer.Exit(1)
