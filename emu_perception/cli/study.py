"""`emu study`: methods × seeds, as one table with paired differences."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.cli.options import DeviceOption

if TYPE_CHECKING:
    from emu_perception.experiments.study_config import Unit


def study(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file; see config/studies.")],
    seed: Annotated[
        list[int] | None, typer.Option(help="Only these seeds of the configuration's.")
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option(help="Only these folds of the configuration's.")
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=1, help="Seeds and folds at a time, in processes of their own."
        ),
    ] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Train and score methods on several seeds; write tables and a picture.

    What is finished is skipped and an interrupted run goes on, so the same command shows how far
    a study is.
    """
    from emu_perception.experiments.study import pretrain, run_unit
    from emu_perception.experiments.study_config import StudyConfig
    from emu_perception.experiments.study_report import markdown
    from emu_perception.experiments.study_summary import finish
    from emu_perception.training.config_file import load_config
    from emu_perception.training.settings import ConfigError

    loaded = load_config(config, StudyConfig)
    given = (("seed", seed or [], loaded.seeds), ("fold", fold or [], loaded.folds))
    for kind, wanted, known in given:
        for each in wanted:
            if each not in known:
                raise ConfigError(f"{config} has no {kind} {each}: it has {known}")
    chosen = [
        unit
        for unit in loaded.units()
        if (not seed or unit.seed in seed) and (not fold or unit.fold in fold)
    ]
    if jobs > 1 and len(chosen) > 1:
        pretrain(loaded, typer.echo)  # before the units, which would all begin it
        _run_processes(config, chosen, jobs, device)
    else:
        for unit in chosen:
            run_unit(loaded, unit, device=device, progress=typer.echo)
    typer.echo(markdown(finish(loaded, f"emu study --config {config}")))


def _run_processes(config: Path, units: list[Unit], jobs: int, device: str) -> None:
    """A process per unit; with few threads each, together they use the cores once."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    base = [sys.executable, "-m", "emu_perception.cli", "study", "--config", str(config)]

    def run(unit: Unit) -> int:
        fold = [] if unit.fold is None else ["--fold", unit.fold]
        command = [*base, "--seed", str(unit.seed), *fold, "--device", device]
        return subprocess.run(command, env=environment, check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        failed = [unit for unit, code in zip(units, pool.map(run, units)) if code]
    if failed:
        typer.echo(f"{failed[0]} failed; see its output", err=True)
        raise typer.Exit(1)
