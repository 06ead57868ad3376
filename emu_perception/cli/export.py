"""`emu export`: a model as a file for deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.cli.options import ModelOption

if TYPE_CHECKING:
    import numpy as np

CHECKED_IMAGES = 8
"""Images on which bf16 is compared with fp32."""


def export(
    out: Annotated[
        Path | None,
        typer.Argument(
            help="File to write, NAME.onnx.",
            show_default="NAME.onnx in the current folder",
        ),
    ] = None,
    model: ModelOption = "",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Video or folder of images on which bf16 is compared with fp32.",
            show_default="the demo's drive",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a model as one ONNX file, from image and camera to maps, that runs without PyTorch.

    The file is compared with PyTorch at several sizes and cameras; one that differs is not kept. If
    the model's maps hardly change in bf16, the file notes it, and `precision: auto` uses bf16
    on CPUs that compute in it.
    """
    from emu_perception.inference.export import ExportError
    from emu_perception.inference.export import export as write
    from emu_perception.inference.model_file import load_model, read_spec
    from emu_perception.inference.model_names import resolve_model_path
    from emu_perception.tasks import byte_maps

    weights = resolve_model_path(model, weights=True)
    path = out or Path(weights.with_suffix(".onnx").name)
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: expected a file ending in .onnx")
    if path.exists() and not force:
        raise ExportError(f"{path} exists: name another file, or replace it with --force")
    loaded = load_model(weights)
    differences = write(loaded, path, _images(images))
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB. Largest differences from PyTorch:")
    for name, difference in differences.items():
        labels = name.endswith(tuple(byte_maps()))
        unit = "of the pixels" if labels else "of the largest value"
        typer.echo(f"  {name}: {difference:.1e}{'' if name.startswith('bf16') else f' {unit}'}")
    checked = ", ".join(read_spec(path).checked_precisions)
    typer.echo(f"Precisions that `auto` may use on a CPU: {checked}")


def _images(source: Path | None) -> list[np.ndarray]:
    """Images that are spread over a video or folder; none where the demo's drive is missing."""
    import cv2

    from emu_perception.resources import find_resource

    if source is None:
        try:
            source = find_resource("config", "demo", "drive.mp4")
        except FileNotFoundError:
            return []
    found = []
    if source.is_dir():
        read = (cv2.imread(str(file), cv2.IMREAD_COLOR) for file in sorted(source.iterdir()))
        found = [image for image in read if image is not None]
    else:
        video = cv2.VideoCapture(str(source))
        good, image = video.read()
        while good:
            found.append(image)
            good, image = video.read()
        video.release()
    if not found:
        raise ValueError(f"{source}: expected a video or a folder of images that OpenCV can read")
    step = max(1, len(found) // CHECKED_IMAGES)
    return [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in found[::step][:CHECKED_IMAGES]]
