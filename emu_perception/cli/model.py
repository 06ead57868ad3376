"""`emu model`: print and convert model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Print and convert model files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="Model file, or a shipped model's name.")] = "",
) -> None:
    """Print the description in a model file."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from emu_perception.inference.deployment import SUFFIX
    from emu_perception.inference.model_file import is_half, read_spec
    from emu_perception.inference.model_names import resolve_model_path
    from emu_perception.text import printable

    path = resolve_model_path(file)
    spec = read_spec(path)
    grid = Table(
        title=Text(printable(path.name)),
        title_justify="left",
        show_header=False,
        box=None,
        padding=(0, 2),
    )
    grid.add_column(style="dim", width=22)
    grid.add_column(overflow="fold", ratio=1)

    def row(name: str, value: object) -> None:
        if value not in ("", None):
            grid.add_row(Text(printable(name)), Text(printable(str(value))))

    row("description", spec.description)
    row("architecture", spec.architecture)
    row("backbone", spec.backbone)
    row("tasks", ", ".join(spec.tasks))
    for name, value in spec.arguments.items():
        row(name, value)
    megabytes = f"{path.stat().st_size / 1e6:.1f} MB"
    if path.suffix == SUFFIX:
        row("file", f"ONNX, for inference, {megabytes}")
    else:
        parameters, numbers = _sizes(path)
        row("parameters", f"{parameters:,} ({numbers:,} with the norms' statistics)")
        row("file", f"{megabytes}, weights in {'fp16' if is_half(path) else 'fp32'}")
    row("input size", f"{spec.input_size[1]} x {spec.input_size[0]} (width x height)")
    mean, std = (
        " ".join(f"{value:.4g}" for value in values)
        for values in (spec.normalization_mean, spec.normalization_std)
    )
    row("normalization", f"mean {mean}, std {std}")
    if spec.camera is None:
        row("camera", "any: depth does not depend on the focal length")
    else:
        row(
            "camera",
            f"canonical focal length {spec.camera.canonical_focal_length:g} px; unknown ones are "
            f"taken for {spec.camera.assumed_focal_ratio:g} x "
            f"{'width' if spec.camera.assumed_focal_of == 'width' else 'sqrt(width x height)'} "
            f"± {spec.camera.assumed_focal_std:.0%}",
        )
    if "depth" in spec.tasks:
        row("depth range", f"{spec.depth_range[0]:g} to {spec.depth_range[1]:g} m")
    row(
        "calibration",
        f"temperature {spec.calibration.temperature:g}, "
        f"depth variance x {spec.calibration.depth_variance_scale:g}, "
        + (
            f"fitted on {spec.calibration.fitted_on}"
            if spec.calibration.fitted_on
            else "not fitted"
        ),
    )
    if spec.label_set is not None:
        classes = Text()
        for name, color in zip(spec.label_set.names, spec.label_set.colors, strict=True):
            classes.append("  ", style=f"on rgb({color[0]},{color[1]},{color[2]})")
            classes.append(f" {printable(name)}   ")
        row("label set", f"{spec.label_set.name}, {len(spec.label_set)} classes")
        grid.add_row("classes", classes)
        row("without depth", ", ".join(spec.label_set.without_depth))
    row("data", spec.data)
    row("licence", spec.license)
    for name, value in _flat(spec.metrics):
        row(name, value)
    Console().print(grid)


@app.command()
def half(
    file: Annotated[str, typer.Argument(help="Model file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")],
) -> None:
    """Write the same model with its weights in fp16: half the size, outputs equal within 1e-3."""
    from emu_perception.inference.model_file import load_model, save_model

    loaded = load_model(file)
    before = loaded.path.stat().st_size
    save_model(out, loaded.network, loaded.spec, half=True)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB instead of {before / 1e6:.1f} MB")


def _sizes(path: Path) -> tuple[int, int]:
    """Count the parameters of a safetensors file, and its numbers with the norms' statistics."""
    import math

    from safetensors import safe_open

    with safe_open(path, framework="numpy") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    parameters = sum(n for name, n in counts.items() if not name.endswith(statistics))
    return parameters, sum(counts.values())


@app.command()
def dropout(
    file: Annotated[str, typer.Argument(help="Model file of a network trained with dropout.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")],
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=0.99, help="Probability of the dropout.", show_default="the trained one"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Forward passes of each image.")] = 10,
) -> None:
    """Write a model that samples its dropout (Monte Carlo Dropout), for the node and all commands.

    Its calibration is left out: that of the network without sampling does not hold for it.
    """
    from emu_perception.inference.methods import monte_carlo_dropout
    from emu_perception.inference.model_file import is_half, load_model, save_model

    loaded = load_model(file)
    trained = loaded.spec.arguments.get("dropout", 0.0)
    if rate is None and not trained:
        raise typer.BadParameter(f"{file} was trained without dropout: give --rate")
    sampled = monte_carlo_dropout(loaded, trained if rate is None else rate, samples)
    save_model(out, sampled.network, sampled.spec, half=is_half(file))
    typer.echo(f"{out}: {samples} passes with dropout {sampled.spec.arguments['dropout']:g}")


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            rows += _flat(value, name)
        else:
            rows.append((name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows
