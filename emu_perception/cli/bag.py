"""`emu bag`: evaluate, annotate and mine recordings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.cli.options import (
    DeviceOption,
    EngineOption,
    FocalLengthOption,
    FovOption,
    IntrinsicsOption,
    ModelOption,
    PrecisionOption,
)

if TYPE_CHECKING:
    from emu_perception.recordings.problems import Problems

BagArgument = Annotated[Path, typer.Argument(help="rosbag2 folder, .mcap or .db3 file.")]
TopicOption = Annotated[
    str | None, typer.Option(help="Topic with the images, if the recording has several.")
]
app = typer.Typer(help="Evaluate, annotate and mine recordings (rosbag2).", no_args_is_help=True)


@app.command()
def evaluate(
    bag: BagArgument,
    model: ModelOption = "",
    labels: Annotated[Path | None, typer.Option(help="Folder of label PNGs.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Folder of 16-bit depth PNGs.")] = None,
    match: Annotated[
        str,
        typer.Option(help="Match files by index (i-th to i-th) or by stamp (name)."),
    ] = "index",
    labels_topic: Annotated[
        str | None, typer.Option(help="Topic with true labels, instead of a folder.")
    ] = None,
    depth_topic: Annotated[
        str | None, typer.Option(help="Topic with true depth, instead of a folder.")
    ] = None,
    depth_scale: Annotated[
        float, typer.Option(min=1e-9, help="Metres per unit of 16-bit depth.")
    ] = 1e-3,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Score the published maps; do not run the model.",
        ),
    ] = False,
    namespace: Annotated[str, typer.Option(help="Namespace of the published maps.")] = "",
    topic: TopicOption = None,
    focal_length: FocalLengthOption = None,
    fov: FovOption = None,
    intrinsics: IntrinsicsOption = None,
    report: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("report"),
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
    replicates: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples; 0: no intervals.")
    ] = 1000,
) -> None:
    """Evaluate a model, or the published maps of a recording, and write a report.

    Exit status: 0 if everything was in order; 3 if something could not be read or scored, or was
    out of order (listed with counts); 1 if nothing could be scored.
    """
    from rich.console import Console
    from rich.progress import Progress

    from emu_perception.cli.cameras import CameraChoice
    from emu_perception.evaluation.frames import FrameLog
    from emu_perception.evaluation.report import Report, summary_lines, write_report
    from emu_perception.inference.model_file import read_spec
    from emu_perception.inference.model_names import resolve_model_path
    from emu_perception.inference.predictor import Predictor
    from emu_perception.recordings.evaluate import evaluate_frames
    from emu_perception.recordings.frames import FrameReader, PublishedMaps
    from emu_perception.recordings.problems import Problems
    from emu_perception.recordings.published import OFFLINE_ONLY
    from emu_perception.recordings.reader import BagReader
    from emu_perception.recordings.scoring import Scorer
    from emu_perception.recordings.truth import TruthFolder

    if match not in ("index", "stamp"):
        raise typer.BadParameter(f"--match is index or stamp, got '{match}'")
    if (labels and labels_topic) or (depth and depth_topic):
        raise typer.BadParameter("give labels, and depth, as a folder or as a topic, not as both")
    _refuse_inside("--report", report, bag, labels, depth)
    camera = CameraChoice(focal_length, fov, intrinsics)
    console, problems = Console(), Problems()
    truth = {"labels": labels_topic, "depth": depth_topic}
    folders = [
        TruthFolder.open(kind, folder, match, depth_scale)  # type: ignore[arg-type]
        for kind, folder in (("labels", labels), ("depth", depth))
        if folder is not None
    ]
    model_path = resolve_model_path(model)
    spec = read_spec(model_path)
    predictor = None
    with BagReader(bag) as reader:
        label_set = spec.label_set if "semantic" in spec.tasks else None
        frames = FrameReader(
            reader,
            problems,
            topic=topic,
            folders=folders,
            truth_topics={kind: name for kind, name in truth.items() if name},
            depth_scale=depth_scale,
            maps=PublishedMaps(reader, namespace, label_set) if published else None,
            camera=camera.intrinsics if camera.is_given else None,
        )
        about = {
            "recording": str(bag),
            "maps" if published else "images": frames.source,
            "model": f"{model_path.name} ({spec.architecture}, {spec.backbone})",
            "calibrated on": spec.calibration.fitted_on or "nothing",
        }
        if not published:
            predictor = Predictor.from_pretrained(model, device, precision, engine)
            device_name = f"{predictor.device}, {predictor.engine}, {predictor.precision}"
            about["device"] = device_name
        with FrameLog(report) as log, _reasons(problems):
            scorer = Scorer(spec, problems, log)
            with Progress(console=console, transient=True) as bars:
                task = bars.add_task("Scoring", total=frames.count)
                evaluate_frames(
                    frames.frames(),
                    predictor,
                    scorer,
                    progress=lambda done: bars.update(task, completed=done),
                )
            result = scorer.result(replicates)
            page = write_report(
                report,
                Report(
                    f"{model_path.stem} on {bag.name}",
                    about,
                    label_set,
                    problems.values(),
                    reasons=OFFLINE_ONLY if published else {},
                    extra={"bag": str(bag), "model": str(model_path)},
                ),
                result,
                log,
            )
    for line in summary_lines(result):
        console.print(line, markup=False, highlight=False)
    _finish(problems, f"{result['frames']} of {frames.count} images scored; see {page}")


@app.command()
def annotate(
    bag: BagArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new recording.")],
    model: ModelOption = "",
    topic: TopicOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this output, e.g. depth/image. Can be repeated."),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the outputs.")] = "",
    output_scale: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Size of the outputs relative to the image.")
    ] = 1.0,
    compress: Annotated[bool, typer.Option("--compress", help="Compress with zstd.")] = False,
    focal_length: FocalLengthOption = None,
    fov: FovOption = None,
    intrinsics: IntrinsicsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Copy a recording and add the outputs of a model, as the node would publish them.

    The exit status is as in `emu bag evaluate`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from emu_perception.cli.cameras import CameraChoice
    from emu_perception.inference.predictor import Predictor
    from emu_perception.recordings.annotate import Annotator
    from emu_perception.recordings.problems import Problems
    from emu_perception.recordings.reader import BagReader
    from emu_perception.recordings.writer import BagWriter

    camera = CameraChoice(focal_length, fov, intrinsics)
    problems = Problems()
    _refuse_inside("--out", out, bag)
    with BagReader(bag) as reader, _reasons(problems):
        source = reader.image_topic(topic)
        predictor = Predictor.from_pretrained(model, device, precision, engine)
        writer = BagWriter(out, compress=compress)
        annotator = Annotator(
            reader,
            writer,
            predictor,
            problems,
            topic=source.name,
            only=only or (),
            namespace=namespace,
            output_scale=output_scale,
            camera=camera.intrinsics if camera.is_given else None,
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
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the frames.")],
    top: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 10,
    min_gap: Annotated[float, typer.Option(min=0.0, help="Least seconds between frames.")] = 1.0,
    model: ModelOption = "",
    topic: TopicOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Select the frames to label next: uncertain ones that differ from each other.

    The exit status is as in `emu bag evaluate`.
    """
    from rich.console import Console
    from rich.progress import Progress

    from emu_perception.inference.predictor import Predictor
    from emu_perception.recordings.mine import score_frames
    from emu_perception.recordings.mined import check_folder, write_frames
    from emu_perception.recordings.problems import Problems
    from emu_perception.recordings.reader import BagReader
    from emu_perception.recordings.recording import ImageDecoder

    _refuse_inside("--out", out, bag)
    check_folder(out)
    problems = Problems()
    with BagReader(bag) as reader, _reasons(problems):
        decoder = ImageDecoder(reader, topic, problems)
        source = decoder.source
        predictor = Predictor.from_pretrained(model, device, precision, engine)
        with Progress(console=Console(), transient=True) as bars:
            task = bars.add_task("Scoring", total=source.count)
            pool = score_frames(
                decoder,
                predictor,
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
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file; see config/studies.")],
    device: DeviceOption = "auto",
) -> None:
    """Train on mined, random and equally spaced frames of a drive, and compare.

    Finished parts are skipped, and an interrupted run continues, as in `emu study`.
    """
    from emu_perception.experiments.study import run_unit
    from emu_perception.experiments.study_report import markdown
    from emu_perception.experiments.study_summary import finish
    from emu_perception.recordings.mining_study import MiningStudy
    from emu_perception.training.config_file import load_config

    loaded = load_config(config, MiningStudy)
    for unit in loaded.units():
        run_unit(loaded, unit, device=device, progress=typer.echo)
    typer.echo(markdown(finish(loaded)))


def _refuse_inside(option: str, out: Path, *inputs: Path | None) -> None:
    """ValueError where what is written would lie inside what is read."""
    for given in inputs:
        if given is not None and out.resolve().is_relative_to(given.resolve()):
            raise ValueError(f"{option} {out} is inside the input {given}: take another folder")


@contextmanager
def _reasons(problems: Problems) -> Iterator[None]:
    """Print what was counted before an error that ends the command."""
    try:
        yield
    except ValueError:
        _print_problems(problems)
        raise


def _print_problems(problems: Problems) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True)
    for kind, found in problems.values().items():
        console.print(f"{found['count']} x {kind}: {found['examples'][0]}", markup=False)


def _finish(problems: Problems, summary: str) -> None:
    from emu_perception.recordings.problems import IMPERFECT

    _print_problems(problems)
    typer.echo(summary)
    if problems:
        raise typer.Exit(IMPERFECT)
