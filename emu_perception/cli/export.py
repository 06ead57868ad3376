"""`emu export`: a model as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu_perception.cli.options import ModelOption, parse_size


def export(
    out: Annotated[
        Path, typer.Argument(help="File to write: .onnx, .xml (OpenVINO) or .engine (TensorRT).")
    ],
    model: ModelOption = "",
    size: Annotated[
        str | None,
        typer.Option(
            help="WIDTHxHEIGHT of the images, multiples of 32.", show_default="the model's own"
        ),
    ] = None,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or TensorRT (experimental).

    The written file is run and compared with PyTorch; one that differs is deleted.
    """
    height_width = None if size is None else parse_size(size)

    from emu_perception.inference.export import FORMATS, ExportError
    from emu_perception.inference.export import export as write
    from emu_perception.inference.model_file import load_model

    formats = {suffix: name for name, suffix in FORMATS.items()}
    if out.suffix not in formats:
        raise ExportError(f"{out}: expected a file ending in {', '.join(formats)}")
    differences = write(load_model(model), out, formats[out.suffix], height_width)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, compared with PyTorch:")
    for name, difference in differences.items():
        what = "of the pixels differ" if name == "labels" else "of its largest value at most"
        typer.echo(f"  {name}: {difference:.1e} {what}")
