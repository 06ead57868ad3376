"""`emu demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emu_perception.cli.options import ModelOption, parse_size

SAMPLE_SECONDS = 3.0
"""Length of the sample recording, about 2 MB."""


def demo(
    source: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="Your own rosbag2, video, or folder of images."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "demo"
    ),
    model: ModelOption = "",
    render: Annotated[
        bool, typer.Option("--render", help="Render a new drive instead of the included one.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the drive to play.")] = 10.0,
    rate: Annotated[
        float, typer.Option(min=0.1, max=120, help="Rate of a rendered drive or a folder, Hz.")
    ] = 10.0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of a rendered drive.")] = "640x480",
    seed: Annotated[int, typer.Option(help="Seed of the rendered street.")] = 0,
    topic: Annotated[
        str | None, typer.Option(help="Topic with the images, if the recording has several.")
    ] = None,
    panels: Annotated[int, typer.Option(min=1, help="Frames to draw.")] = 6,
    sample: Annotated[
        Path | None,
        typer.Option(help="Only write a small recording with camera_info to this folder."),
    ] = None,
) -> None:
    """Play a drive to the node over DDS, record its outputs, and draw them.

    Without --input it is a rendered street drive that comes with the package. --render renders
    another one, which needs PyTorch. Node, player and recorder are separate processes in a separate
    ROS domain.
    """
    if sample is not None:
        from emu_perception.cli.demo.drive import write_kept_drive

        write_kept_drive(sample, seconds=min(seconds, SAMPLE_SECONDS), compressed=True)
        typer.echo(f"{sample}: play it with `ros2 bag play --loop {sample}`")
        return
    height_width = parse_size(size)
    if render and source is not None:
        raise typer.BadParameter("--render and --input exclude each other")

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from emu_perception.cli.demo import drive
    from emu_perception.cli.demo import pictures as report
    from emu_perception.cli.demo.run import run_demo
    from emu_perception.evaluation.result import write_json
    from emu_perception.inference.model_file import read_spec
    from emu_perception.inference.model_names import resolve_model_path

    model_path = resolve_model_path(model)
    spec = read_spec(model_path)
    label_set = spec.label_set if "semantic" in spec.tasks else None
    _make_room(out, source)
    console = Console()
    with Progress(
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), console=console
    ) as bars:
        writing = bars.add_task("Rendering a street" if render else "Reading", total=None)

        def wrote(done: int, total: int) -> None:
            bars.update(writing, completed=done, total=total)

        bag = out / "drive"
        if render:
            drive.write_street_drive(
                bag, seconds, rate, size=height_width, seed=seed, progress=wrote
            )
        elif source is None:
            drive.write_kept_drive(bag, seconds=seconds, progress=wrote)
        else:
            bag = drive.open_input(source, bag, seconds=seconds, rate=rate, progress=wrote)
            bars.update(writing, total=1, completed=1)

        tasks: dict[str, Any] = {}

        def follow(what: str, done: int, total: int) -> None:
            if what not in tasks:
                name = {"start": "Starting the node", "frames": "Answered frames"}[what]
                tasks[what] = bars.add_task(name, total=total)
            bars.update(tasks[what], completed=done, total=total)

        recording = out / "recording"
        result = run_demo(
            bag,
            recording,
            model_path,
            seconds=seconds,
            image_topic=topic,
            logs=out / "logs",
            progress=follow,
        )
    frames = report.recorded_frames(bag, recording, label_set, panels, topic)
    title = source.name if source else "Rendered street"
    pictures = report.write_pictures(frames, label_set, title, out)
    diagnostics = report.node_diagnostics(recording)
    about = {
        "input": str(source or f"rendered street{f', seed {seed}' if render else ''}"),
        "image size": f"{frames[0].image.shape[1]} x {frames[0].image.shape[0]}",
        "model": f"{model_path.name} ({spec.architecture}, {spec.backbone})",
        "device": " ".join(diagnostics[k] for k in ("device", "precision") if k in diagnostics),
    }
    write_json(out / "demo.json", {**about, **result.to_dict(), "node_diagnostics": diagnostics})
    console.print(report.table(result, about))
    console.print(
        f"\n{pictures[0]} shows an overview. The folder also has panels, recordings and logs."
    )


def _make_room(out: Path, source: Path | None) -> None:
    """Make the folder of a demo's recordings, logs and pictures; only its own are replaced.

    Raises:
        ValueError: what would be replaced is not an earlier demo's, or is what is to be played.
    """
    logs = out / "logs"
    for own in (out / "drive", out / "recording"):
        if source is not None and own.resolve() in (source.resolve(), *source.resolve().parents):
            raise ValueError(f"{source} lies where the demo records: take another --out")
        if own.exists() and not logs.exists():
            raise ValueError(f"{own} is not an earlier demo's: move it, or take another --out")
    logs.mkdir(parents=True, exist_ok=True)
