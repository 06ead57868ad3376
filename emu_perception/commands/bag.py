"""`emu bag`: what robotics people do with recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.commands.options import DeviceOption, ModelOption, PrecisionOption

if TYPE_CHECKING:
    from emu_perception.replay.problems import Problems

BagArgument = Annotated[Path, typer.Argument(help="rosbag2 folder, .mcap or .db3 file.")]
TopicOption = Annotated[
    str | None, typer.Option(help="The bag's topic with the images, if it has several.")
]
EngineOption = Annotated[str, typer.Option(help="auto, pytorch or openvino.")]
app = typer.Typer(help="Recorded drives (rosbag2) through a model.", no_args_is_help=True)

IMPERFECT = 3
"""Exit status where something could not be read or scored, or was out of order."""


@app.command()
def evaluate(
    bag: BagArgument,
    model: ModelOption = "",
    labels: Annotated[
        Path | None, typer.Option(help="Folder of label PNGs, the i-th for the i-th image.")
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Folder of 16-bit depth PNGs, the i-th for the i-th image.")
    ] = None,
    depth_scale: Annotated[float, typer.Option(min=1e-9, help="Metres per unit of them.")] = 1e-3,
    topic: TopicOption = None,
    report: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
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
    _finish(problems, f"{result['frames']} of {source.count} images scored; see {page}")


@app.command()
def annotate(
    bag: BagArgument,
    out: Annotated[Path, typer.Option(help="Folder of the new recording.")],
    model: ModelOption = "",
    topic: TopicOption = None,
    only: Annotated[
        list[str] | None, typer.Option(help="An output such as depth/image; again for more.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the outputs' topics.")] = "",
    output_scale: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Size of the outputs over the image's.")
    ] = 1.0,
    compress: Annotated[bool, typer.Option("--compress", help="Pack with zstd.")] = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Add a model's outputs to a recording, with the node's topics, types, stamps and frames.

    The exit status is that of `emu bag evaluate`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from emu_perception.bags.reader import BagReader
    from emu_perception.bags.writer import BagWriter
    from emu_perception.predictor import Predictor
    from emu_perception.replay.annotate import Annotator
    from emu_perception.replay.problems import Problems

    problems = Problems()
    with BagReader(bag) as reader:
        source = reader.image_topic(topic)
        predictor = Predictor.from_file(model, device, precision, engine)
        writer = BagWriter(out, compress=compress)
        annotator = Annotator(
            *(reader, writer, predictor, problems),
            topic=source.name,
            only=only or (),
            namespace=namespace,
            output_scale=output_scale,
        )
        with Progress(console=Console(), transient=True) as bars, writer:
            task = bars.add_task("Annotating", total=source.count)
            answered = annotator.run(lambda done: bars.update(task, completed=done))
    if not answered:
        raise ValueError(f"not a single image of the recording could be read; {out} is a copy")
    _finish(problems, f"outputs for {answered} of {source.count} images in {out}")


@app.command()
def mine(
    bag: BagArgument,
    out: Annotated[Path, typer.Option(help="Folder for the frames.")],
    top: Annotated[int, typer.Option(min=1, help="How many frames.")] = 10,
    min_gap: Annotated[float, typer.Option(min=0.0, help="Seconds between any two.")] = 1.0,
    model: ModelOption = "",
    topic: TopicOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Find the frames of a recording most worth labelling: uncertain, and unlike one another.

    The exit status is that of `emu bag evaluate`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from emu_perception.bags.reader import BagReader
    from emu_perception.model_file import load_model
    from emu_perception.predictor import Predictor
    from emu_perception.replay.mine import EncoderFeatures, score_frames
    from emu_perception.replay.mined import check_folder, write_frames
    from emu_perception.replay.problems import Problems
    from emu_perception.replay.recording import ImageDecoder

    check_folder(out)
    problems = Problems()
    with BagReader(bag) as reader:
        decoder = ImageDecoder(reader, topic, problems)
        source = decoder.source
        predictor = Predictor.from_file(model, device, precision, engine)
        # Loaded once more: the engine may have changed its network's form.
        features = EncoderFeatures(load_model(predictor.path), predictor.device)
        with Progress(console=Console(), transient=True) as bars:
            task = bars.add_task("Scoring", total=source.count)
            pool = score_frames(
                *(decoder, predictor, features),
                progress=lambda done: bars.update(task, completed=done),
            )
        if not pool.frames:
            raise ValueError("not a single image of the recording could be read")
        chosen = pool.choose(top, min_gap)
        manifest = write_frames(out, reader, source.name, pool, chosen, predictor, min_gap)
    few = "" if len(chosen) == top else f" (no more of the {top} lie {min_gap:g} s apart)"
    _finish(problems, f"{len(chosen)} of {source.count} images{few}; see {manifest}")


@app.command("mining-study")
def mining_study(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file; see config/mining.")],
    device: DeviceOption = "auto",
) -> None:
    """Label mined, random and equally spaced frames of a drive, train on them, and compare.

    What is finished is skipped and an interrupted run goes on, as in `emu study`.
    """
    from emu_perception.replay.mining_study import MiningStudy
    from emu_perception.training.config import load_config
    from emu_perception.training.study import run_seed
    from emu_perception.training.study_report import markdown
    from emu_perception.training.study_summary import finish

    loaded = load_config(config, MiningStudy)
    for seed in loaded.seeds:
        run_seed(loaded, seed, device=device, progress=typer.echo)
    typer.echo(markdown(finish(loaded)))


def _finish(problems: Problems, summary: str) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True)
    for kind, found in problems.values().items():
        console.print(f"{found['count']} x {kind}: {found['examples'][0]}", markup=False)
    console.print(summary, markup=False)
    if problems:
        raise typer.Exit(IMPERFECT)
