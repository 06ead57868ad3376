"""`emu domain`: the training domain of a model, and the detection of other domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from emu_perception.cli.options import ModelOption

app = typer.Typer(
    help="Statistics of a model's training domain, and how well they detect other domains.",
    no_args_is_help=True,
)
ConfigArgument = Annotated[Path, typer.Argument(help="YAML file; see config/studies/domain.")]


@app.callback()
def _group() -> None:
    pass


@app.command()
def fit(
    config: ConfigArgument,
    model: Annotated[str, typer.Option("--model", "-m", help="Model file.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write instead of changing the model file."),
    ] = None,
) -> None:
    """Compute the statistics of the training domain and store them in the model file.

    The model then has `domain_distance`: 1 is the distance below which most held-out images of the
    domain are.
    """
    from emu_perception.experiments import domain
    from emu_perception.inference.model_file import is_half, load_model, save_model

    loaded, settings = load_model(model), _settings(config)
    with _bars() as follow:
        fitted, statistics = domain.fit(loaded, settings, follow)
    save_model(out or fitted.path, fitted.network, fitted.spec, half=is_half(model))
    typer.echo(
        f"threshold {statistics.threshold:.4g}: {statistics.percentile:g} % of "
        f"{statistics.held_out}; fitted on {statistics.fitted_on}"
    )


@app.command()
def compare(
    config: ConfigArgument,
    model: ModelOption = "",
    json: Annotated[Path | None, typer.Option(help="File to write the figures to.")] = None,
) -> None:
    """Compare scores that detect images of other domains: AUROC of `outside` against `inside`."""
    from rich.console import Console
    from rich.table import Table

    from emu_perception.evaluation.result import write_json
    from emu_perception.experiments import domain
    from emu_perception.inference.model_file import load_model

    loaded, settings = load_model(model), _settings(config)
    with _bars() as follow:
        found = domain.compare(loaded, settings, follow)
    console = Console()
    shown = Table("images", "group", "count", "median distance", "above 1")
    for name, row in found["images"].items():
        shown.add_row(
            name,
            row["group"],
            str(row["count"]),
            f"{row['median_distance']:.2f}",
            f"{row['above_threshold']:.3f}",
        )
    console.print(shown)
    scores = list(found["auroc"])
    shown = Table("AUROC against the other group", *scores)
    for name in found["auroc"][scores[0]]:
        shown.add_row(name, *(f"{found['auroc'][score][name]:.3f}" for score in scores))
    console.print(shown)
    if json is not None:
        write_json(json, found)


def _settings(config: Path) -> Any:
    from emu_perception.experiments.domain import DomainConfig
    from emu_perception.training.config_file import load_config

    return load_config(config, DomainConfig)


@contextmanager
def _bars() -> Iterator[Callable[[int, int], None]]:
    """A progress bar per data set."""
    from rich.progress import Progress

    with Progress(transient=True) as bars:
        tasks: list[Any] = []

        def follow(done: int, total: int) -> None:
            if done == 1:
                tasks.append(bars.add_task("Images", total=total))
            bars.update(tasks[-1], completed=done)

        yield follow
