"""`emu study`: methods × seeds, as one table with paired differences."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from emu_perception.commands.options import DeviceOption


def study(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file; see config/study.")],
    seed: Annotated[
        list[int] | None, typer.Option(help="Only these seeds of the configuration's.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Seeds at a time, in processes of their own.")
    ] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Train and score methods on several seeds; write tables and a picture.

    What is finished is skipped and an interrupted run goes on, so the same command shows how far
    a study is.
    """
    from emu_perception.training.config import ConfigError
    from emu_perception.training.config_file import load_config
    from emu_perception.training.study import StudyConfig, pretrain, run_seed
    from emu_perception.training.study_report import markdown
    from emu_perception.training.study_summary import finish

    loaded = load_config(config, StudyConfig)
    chosen = seed or loaded.seeds
    unknown = set(chosen) - set(loaded.seeds)
    if unknown:
        raise ConfigError(f"{config} has no seed {sorted(unknown)[0]}: it has {loaded.seeds}")
    if jobs > 1 and len(chosen) > 1:
        pretrain(loaded, typer.echo)  # before the seeds, which would all begin it
        _run_processes(config, chosen, jobs, device)
    else:
        for each in chosen:
            run_seed(loaded, each, device=device, progress=typer.echo)
    typer.echo(markdown(finish(loaded)))


def _run_processes(config: Path, seeds: list[int], jobs: int, device: str) -> None:
    """A process per seed; with few threads each, together they use the cores once."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    base = [sys.executable, "-m", "emu_perception.cli", "study", "--config", str(config)]

    def run(seed: int) -> int:
        command = [*base, "--seed", str(seed), "--device", device]
        return subprocess.run(command, env=environment, check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        failed = [seed for seed, code in zip(seeds, pool.map(run, seeds)) if code]
    if failed:
        raise RuntimeError(f"seed {failed[0]} failed; its output says why")
