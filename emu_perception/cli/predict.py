"""`emu predict`: pictures of what a model says about images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu_perception.cli.options import (
    DeviceOption,
    ModelOption,
    PrecisionOption,
)


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: ModelOption = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the panels.")] = Path(
        "predictions"
    ),
    focal_length: Annotated[
        float | None,
        typer.Option(min=1, help="Of the camera, in pixels of these images; metres depend on it."),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Draw classes, depth and both uncertainties of image files."""
    import cv2

    from emu_perception.camera import Intrinsics
    from emu_perception.images import read_image_file, write_png
    from emu_perception.inference.predictor import Predictor
    from emu_perception.visualization.panels import panel

    targets = _panel_files(images, out)
    predictor = Predictor.from_file(model, device, precision)
    out.mkdir(parents=True, exist_ok=True)
    for file, target in targets.items():
        image = cv2.cvtColor(read_image_file(file), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        camera = None
        if focal_length is not None:
            centre = (width - 1) / 2, (height - 1) / 2
            camera = Intrinsics(focal_length, focal_length, *centre, width, height)
        prediction = predictor.predict(image, camera)
        picture = panel(image, prediction, predictor.label_set, title=file.name)
        write_png(target, picture)
        typer.echo(target)


def _panel_files(images: list[Path], out: Path) -> dict[Path, Path]:
    """Where the panel of each image goes.

    Raises:
        ValueError: two would go to the same place, or one would replace an image.
    """
    targets = {file: out / f"{file.stem}.png" for file in images}
    given = {file.resolve() for file in images}
    for file, target in targets.items():
        if not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such image")
        if target.resolve() in given:
            raise ValueError(f"{target} is one of the images: take another --out")
        twins = [str(other) for other, its in targets.items() if its == target]
        if len(twins) > 1:
            raise ValueError(
                f"the panels of {' and '.join(twins)} would both be {target.name}: take a folder "
                "for each"
            )
    return targets
