"""`emu bag`: what robotics people do with recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu_perception.commands.options import DeviceOption, ModelOption, PrecisionOption

app = typer.Typer(help="Recorded drives (rosbag2) through a model.", no_args_is_help=True)

IMPERFECT = 3
"""Exit status where something could not be read or scored, or was out of order."""


@app.callback()
def _group() -> None:
    """Keeps `evaluate` a command of its own while it is the only one."""


@app.command()
def evaluate(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder, .mcap or .db3 file.")],
    model: ModelOption = "",
    labels: Annotated[
        Path | None, typer.Option(help="Folder of label PNGs, the i-th for the i-th image.")
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Folder of 16-bit depth PNGs, the i-th for the i-th image.")
    ] = None,
    depth_scale: Annotated[float, typer.Option(min=1e-9, help="Metres per unit of them.")] = 1e-3,
    topic: Annotated[
        str | None, typer.Option(help="The bag's topic with the images, if it has several.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: Annotated[str, typer.Option(help="auto, pytorch or openvino.")] = "auto",
    replicates: Annotated[int, typer.Option(min=0, help="Bootstrap draws; 0: none.")] = 1000,
) -> None:
    """Score a model on a recording and write a report.

    The exit status is 0 if everything was in order, 3 if something could not be read or scored, or
    was out of order (the report and the terminal name and count it), 1 if nothing could be scored.
    """
    from rich.console import Console
    from rich.progress import Progress

    from emu_perception.bags.reader import BagReader
    from emu_perception.evaluation.frames import FrameLog
    from emu_perception.evaluation.report import Report, write_report
    from emu_perception.predictor import Predictor
    from emu_perception.replay.evaluate import (
        GroundTruthFolders,
        evaluate_frames,
        read_frames,
        result_of,
    )
    from emu_perception.replay.problems import Problems

    console = Console()
    problems = Problems()
    truth = GroundTruthFolders.open(labels, depth, depth_scale)
    with BagReader(bag) as reader:
        source = reader.image_topic(topic)
        predictor = Predictor.from_file(model, device, precision, engine)
        with Progress(console=console, transient=True) as bars, FrameLog(report) as log:
            task = bars.add_task("Scoring", total=source.count)
            evaluator = evaluate_frames(
                read_frames(reader, source.name, truth, problems),
                predictor,
                problems,
                log,
                progress=lambda done: bars.update(task, completed=done),
            )
        result = result_of(evaluator, replicates)
    spec = predictor.spec
    about = {
        "recording": str(bag),
        "images": f"{source.count} on {source.name}",
        "model": f"{predictor.path.name} ({spec.architecture}, {spec.backbone})",
        "calibrated on": spec.calibration.fitted_on or "nothing",
        "device": f"{predictor.device}, {predictor.engine}, {predictor.precision}",
    }
    page = write_report(
        report,
        Report(
            f"{predictor.path.stem} on {bag.name}",
            about,
            predictor.label_set,
            problems.values(),
            extra={"bag": str(bag), "model": str(predictor.path)},
        ),
        result,
        log,
    )
    for kind, found in problems.values().items():
        console.print(f"{found['count']} x {kind}: {found['examples'][0]}", markup=False)
    console.print(f"{result['frames']} of {source.count} images scored; see {page}", markup=False)
    if problems:
        raise typer.Exit(IMPERFECT)
