"""`emu soak`: run the node under ordinary trouble and record what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.cli.options import ModelOption

if TYPE_CHECKING:
    from emu_perception.benchmark.limits import Limit


def soak(
    minutes: Annotated[
        float, typer.Option(min=0.5, max=10_000, help="How long the node is kept busy.")
    ] = 60.0,
    model: ModelOption = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report and logs.")] = Path(
        "soak"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the robot's actions.")] = 0,
    cycles: Annotated[
        int,
        typer.Option(min=0, help="Run this many lifecycle cycles with one image each instead."),
    ] = 0,
) -> None:
    """Run the node with cameras that crash, subscribers that come and go, size and parameter
    changes, stamps that jump back and lifecycle transitions.

    The exit status is 1 where memory, threads or descriptors grow, or images are not counted.
    """
    from rich.console import Console

    from emu_perception.benchmark.soak.report import write_report
    from emu_perception.benchmark.soak.run import Soak
    from emu_perception.inference.model_names import resolve_model_path

    path = resolve_model_path(model)
    if cycles:
        _run_cycles(path, cycles, out)
        return
    with Console(stderr=True).status("") as status:
        result = Soak(path, minutes, seed, out / "logs", status.update).run()
    page = write_report(out, result)
    for check in result.checks:
        _print(check)
    typer.echo(page)
    if not result.holds:
        raise typer.Exit(1)


def _run_cycles(path: Path, cycles: int, out: Path) -> None:
    from rich.progress import Progress

    from emu_perception.benchmark.soak.cycles import run_cycles
    from emu_perception.evaluation.result import write_json

    with Progress(transient=True) as bars:
        task = bars.add_task("Lifecycle cycles", total=cycles)
        result = run_cycles(
            path, cycles, out / "logs", lambda done: bars.update(task, completed=done)
        )
    write_json(out / "cycles.json", result.to_dict())
    _print(result.check)
    typer.echo(out / "cycles.json")
    if result.check.holds is False:
        raise typer.Exit(1)


def _print(check: Limit) -> None:
    verdicts = {True: "holds", False: "DOES NOT HOLD", None: f"not judged, {check.reason}"}
    typer.echo(
        f"{check.name}: {check.figure:.4g} {check.unit} (limit {check.limit:g}): "
        f"{verdicts[check.holds]}"
    )
