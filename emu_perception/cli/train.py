"""`emu train`, `emu train ensemble` and `emu distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Train a network, or the members of an ensemble.", invoke_without_command=True
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; see config/train.")
]
OutputOption = Annotated[
    str | None,
    typer.Option("--out", "-o", help="Folder of the run; replaces that of the configuration."),
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Seed; replaces that of the configuration.")
]
ResumeOption = Annotated[
    str, typer.Option(help="auto (continue an interrupted run), never, or a checkpoint file.")
]


@app.callback()
def train(
    context: typer.Context,
    config: ConfigOption = None,
    out: OutputOption = None,
    seed: SeedOption = None,
    resume: ResumeOption = "auto",
) -> None:
    """Train a network and write its model file."""
    if context.invoked_subcommand is not None:
        return
    from emu_perception.training.run import train as run

    typer.echo(run(_load(config, out, seed), resume))


@app.command()
def ensemble(
    config: ConfigOption = None,
    members: Annotated[
        int, typer.Option("--members", "-n", min=2, help="Number of networks in the ensemble.")
    ] = 10,
    out: OutputOption = None,
    seed: SeedOption = None,
    resume: ResumeOption = "auto",
) -> None:
    """Train the members of a Deep Ensemble; finished ones are skipped."""
    from emu_perception.training.run import train_ensemble

    typer.echo(train_ensemble(_load(config, out, seed), members, resume))


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(help="train, table or study: the kind of configuration.")
    ] = "train",
) -> None:
    """Print the JSON schema of configuration files, for editors."""
    import json

    from pydantic import BaseModel

    from emu_perception.experiments.study_config import StudyConfig
    from emu_perception.experiments.table_config import TableConfig
    from emu_perception.training.config import TrainConfig
    from emu_perception.training.config_file import json_schema

    kinds: dict[str, type[BaseModel]]
    kinds = {"train": TrainConfig, "table": TableConfig, "study": StudyConfig}
    if kind not in kinds:
        raise typer.BadParameter(f"kind must be {', '.join(kinds)}, got '{kind}'")
    typer.echo(json.dumps(json_schema(kinds[kind]), indent=2))


def distill(
    config: ConfigOption = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option("--teacher", "-t", help="Model file of the teacher. Can be repeated."),
    ] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Trained model that the student starts from.")
    ] = None,
    out: OutputOption = None,
    seed: SeedOption = None,
    resume: ResumeOption = "auto",
) -> None:
    """Train a student on labels and on the predictions of a frozen teacher (EMUFormer)."""
    from emu_perception.training.loss_config import DistillationConfig
    from emu_perception.training.run import train as run
    from emu_perception.training.settings import ConfigError

    loaded = _load(config, out, seed)
    if teacher:
        settings = loaded.distillation or DistillationConfig(teacher=teacher)
        settings = settings.model_copy(update={"teacher": teacher})
        loaded = loaded.model_copy(update={"distillation": settings})
    if start_from is not None:
        model = loaded.model.model_copy(update={"start_from": start_from})
        loaded = loaded.model_copy(update={"model": model})
    if loaded.distillation is None:
        raise ConfigError(f"{config} names no teacher: add 'distillation', or give --teacher")
    typer.echo(run(loaded, resume))


def _load(config: Path | None, out: str | None, seed: int | None) -> Any:
    if config is None:
        raise typer.BadParameter("give a configuration: --config config/train/….yaml")
    from emu_perception.training.config_file import load_config

    overrides: dict[str, Any] = {}
    if out is not None:
        overrides["output"] = out
    if seed is not None:
        overrides["seed"] = seed
    return load_config(config, **overrides)
