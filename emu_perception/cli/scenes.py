"""`emu scenes`: generated training scenes to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu_perception.cli.options import parse_size

LABEL_SETS = {"street": "camvid", "room": "nyuv2_13"}


def scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "scenes"
    ),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of scenes.")] = 8,
    kind: Annotated[str, typer.Option(help="Kind of scene: street or room.")] = "street",
    size: Annotated[str, typer.Option(help="Size of the images, WIDTHxHEIGHT.")] = "512x256",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first scene; the next ones count up.")
    ] = 0,
    odd_objects: Annotated[
        bool, typer.Option(help="Add things that belong to no class, for tests of uncertainty.")
    ] = False,
) -> None:
    """Render random scenes: image, classes and depth of each, and all of them in one overview."""
    height_width = parse_size(size)

    import numpy as np
    from rich.progress import track

    from emu_perception.images import write_png
    from emu_perception.labels import load_label_set
    from emu_perception.prediction import Prediction
    from emu_perception.scenes import render_scene
    from emu_perception.visualization.panels import contact_sheet, panel

    out.mkdir(parents=True, exist_ok=True)
    pairs: list[tuple[np.ndarray, Prediction]] = []
    label_set = None
    for index in track(range(seed, seed + count), description="Rendering", transient=True):
        frame = render_scene(index, height_width, kind, odd_objects=odd_objects)
        label_set = load_label_set(LABEL_SETS[kind])
        depth = np.where(frame.depth > 0, frame.depth, np.nan)
        pairs.append((frame.image, Prediction(labels=frame.labels, depth=depth)))
        picture = panel(*pairs[-1], label_set, title=f"{kind} {index}")
        write_png(out / f"{kind}_{index:04d}.png", picture)
    overview = contact_sheet(pairs, label_set, title=f"{kind} scenes")
    write_png(out / "overview.png", overview)
    typer.echo(f"{count} scene{'s' * (count > 1)} in {out}; overview.png shows all of them")
