"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Model file, or a shipped model's name.",
        show_default="the shipped one",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(help="Where the network runs: auto, cpu, cuda or tensorrt.")
]
EngineOption = Annotated[
    str,
    typer.Option(
        help="What runs the network: auto, openvino, onnxruntime, pytorch, compiled or cuda_graph."
    ),
]
PrecisionOption = Annotated[
    str, typer.Option(help="Arithmetic of the network: auto, fp32, fp16 or bf16.")
]
FocalLengthOption = Annotated[
    float | None,
    typer.Option(help="Focal length of the camera in pixels; metres depend on it."),
]
FovOption = Annotated[
    float | None,
    typer.Option("--fov", help="Horizontal field of view in degrees, 1–179; in place of it."),
]
IntrinsicsOption = Annotated[
    Path | None,
    typer.Option(
        "--intrinsics", help="camera_info YAML, or JSON with fx, fy, cx, cy; in place of it."
    ),
]

DataOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of the data set, NAME=VALUE. Can be repeated."),
]


def parse_options(texts: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` each, the values as in YAML."""
    from emu_perception.yaml_file import parse_yaml

    values: dict[str, Any] = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"--option expects NAME=VALUE, got '{text}'")
        try:
            values[name] = parse_yaml(value, f"--option {name}")
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return values


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` as height and width."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if not match or not all(16 <= int(n) <= 8192 for n in match.groups()):
        raise typer.BadParameter(f"expected WIDTHxHEIGHT such as 640x480, got '{text}'")
    return int(match.group(2)), int(match.group(1))
