"""`emu benchmark`: measure speed and memory on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.cli.options import DeviceOption, parse_size

if TYPE_CHECKING:
    from emu_perception.benchmark.node_cameras import CamerasBenchmark
    from emu_perception.benchmark.node_results import NodeBenchmark

app = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)


@app.callback(invoke_without_command=True)
def engines(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="mit_b0 … mit_b5 (random weights, 40 classes and depth), a model file, or a "
            "shipped model's name. Can be repeated.",
            show_default="mit_b0 and mit_b2",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Engine to measure. Can be repeated.", show_default="auto"),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Image size, WIDTHxHEIGHT. Can be repeated.", show_default="640x480"),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Arithmetic: auto, fp32, fp16 or bf16. Can be repeated.", show_default="auto"
        ),
    ] = None,
    device: DeviceOption = "auto",
    members: Annotated[
        int | None,
        typer.Option(min=2, help="Also time a Deep Ensemble and Sub-Ensemble of this size."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Hugging Face's SegFormer as the baseline of random networks: eager, compiled, "
            "or none. Can be repeated.",
            show_default="eager",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Measured calls of each network.")] = 20,
    warm_up: Annotated[
        int, typer.Option(min=1, help="Calls of each network before measuring.")
    ] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Number of CPU threads.")] = 2,
    memory: Annotated[bool, typer.Option(help="Measure memory in separate processes.")] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the limits for this machine instead of the options' networks; the "
            "exit status is 1 if one is exceeded.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File to write the figures to.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="File to write the tables to.")
    ] = None,
) -> None:
    """Time networks by engine, size and precision, in turns with a baseline."""
    if context.invoked_subcommand is not None:
        return
    sizes = [parse_size(text) for text in size or ["640x480"]]

    from rich.console import Console

    from emu_perception.atomic import write_text
    from emu_perception.benchmark.cases import make_cases
    from emu_perception.benchmark.claims import cases_to_check, check_claims
    from emu_perception.benchmark.deployment import deployments_to_check
    from emu_perception.benchmark.limits import failed
    from emu_perception.benchmark.matrix import run_matrix
    from emu_perception.benchmark.peer import check_kinds
    from emu_perception.benchmark.tables import (
        claims_markdown,
        machine_line,
        markdown,
    )
    from emu_perception.evaluation.result import write_json
    from emu_perception.inference.engines.base import choose_device

    place = str(choose_device(device))
    cases = cases_to_check(place)
    if not check:
        cases = make_cases(
            model or ["mit_b0", "mit_b2"],
            engines=engine or ["auto"],
            sizes=sizes,
            precisions=precision or ["auto"],
            device=place,
            members=members,
        )
    console = Console()
    with console.status("") as status:
        matrix = run_matrix(
            cases,
            peers=check_kinds(peer or ["eager"]),
            rounds=rounds,
            warm_up=warm_up,
            threads=threads,
            measure_memory=memory,
            progress=status.update,
        )
        deployments = []
        if check and place == "cpu":
            deployments = deployments_to_check(threads, status.update)
    claims = check_claims(matrix, deployments) if check else []
    text = f"{markdown(matrix)}\n{machine_line(matrix)}\n"
    if claims:
        text += f"\n{claims_markdown(claims)}"
    if json_file is not None:
        write_json(json_file, {**matrix.to_dict(), "claims": [c.to_dict() for c in claims]})
    if markdown_file is not None:
        write_text(markdown_file, text)
    typer.echo(text)
    if failed(claims):
        raise typer.Exit(1)


@app.command()
def node(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Model file, a shipped model's name, or mit_b0 … mit_b5 with random weights.",
            show_default="the shipped one",
        ),
    ] = "",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 10.0,
    size: Annotated[
        str | None,
        typer.Option(
            help="WIDTHxHEIGHT of the images for timing.",
            show_default="640x480; 480x360 with several cameras",
        ),
    ] = None,
    cameras: Annotated[
        int,
        typer.Option(
            min=1,
            max=16,
            help="Cameras of the node; with several, their memory, rate and fairness are measured "
            "and nothing else.",
        ),
    ] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=1000,
            help="Rate of the images for timing, Hz.",
            show_default="half of what the predictor alone reaches",
        ),
    ] = None,
    camera_size: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT of the images for counting losses.")
    ] = "1920x1080",
    camera_rate: Annotated[
        float, typer.Option(min=0.1, max=1000, help="Rate of these images, Hz.")
    ] = 30.0,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep",
            help="Also both sizes at 10, 30 and 60 Hz, and at the highest sustained rate.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="The exit status is 1 if a limit is exceeded."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File to write the figures to.")
    ] = None,
) -> None:
    """Count the frames that the node loses, and time its overhead.

    Camera, node and subscriber are separate processes in a separate ROS domain.
    """
    height_width = parse_size(size or ("640x480" if cameras == 1 else "480x360"))
    camera_height_width = parse_size(camera_size)

    import tempfile

    from rich.console import Console

    from emu_perception.benchmark.cases import Case
    from emu_perception.benchmark.limits import failed
    from emu_perception.benchmark.node import benchmark_node
    from emu_perception.benchmark.node_cameras import benchmark_cameras
    from emu_perception.benchmark.node_tables import cameras_table, node_table
    from emu_perception.benchmark.tables import claims_markdown
    from emu_perception.evaluation.result import write_json
    from emu_perception.inference.model_file import LoadedModel, save_model
    from emu_perception.inference.model_names import resolve_model_path

    console = Console()
    if json_file is not None:
        # Before minutes are spent.
        json_file.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="emu_benchmark_") as logs,
        console.status("") as status,
    ):
        case = Case(model, height_width)
        if case.is_random:
            path, loaded = Path(logs) / f"{model}.safetensors", case.load()
            assert isinstance(loaded, LoadedModel)
            save_model(path, loaded.network, loaded.spec)
        else:
            path = resolve_model_path(model)
        result: NodeBenchmark | CamerasBenchmark
        if cameras > 1:
            result = benchmark_cameras(
                path,
                cameras,
                seconds=seconds,
                size=height_width,
                logs=Path(logs),
                progress=status.update,
            )
            table = cameras_table(result)
        else:
            result = benchmark_node(
                path,
                seconds=seconds,
                size=height_width,
                rate=rate,
                camera_size=camera_height_width,
                camera_rate=camera_rate,
                sweep=sweep,
                logs=Path(logs),
                progress=status.update,
            )
            table = node_table(result)
    if json_file is not None:
        write_json(json_file, result.to_dict())
    console.print(table)
    if check:
        claims = result.claims()
        typer.echo(claims_markdown(claims))
        if failed(claims):
            raise typer.Exit(1)


@app.command()
def distillation(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file of the student.")],
    members: Annotated[
        int, typer.Option("--members", "-n", min=1, help="Number of networks in its teacher.")
    ] = 10,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Batch size; replaces that of the configuration.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps of each kind.")] = 10,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu or cuda.")] = "cpu",
    check: Annotated[
        bool,
        typer.Option("--check", help="The exit status is 1 if a step takes over 3 plain ones."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File to write the figures to.")
    ] = None,
) -> None:
    """Measure a training step with a teacher, compared with a plain step."""
    from rich.console import Console
    from rich.table import Table

    from emu_perception.benchmark.limits import failed
    from emu_perception.benchmark.tables import claims_markdown
    from emu_perception.benchmark.training_cost import step_cost
    from emu_perception.evaluation.result import write_json
    from emu_perception.training.config_file import load_config

    loaded = load_config(config)
    if batch_size is not None:
        data = loaded.data.model_copy(update={"batch_size": batch_size})
        loaded = loaded.model_copy(update={"data": data})
    found = step_cost(loaded, members, steps=steps, device=device)
    if json_file is not None:
        write_json(json_file, found.to_dict())
    height, width = found.crop
    table = Table(
        "step",
        "seconds",
        "memory (MB)",
        title=f"{loaded.model.backbone}, {found.batch_size} x {height} x {width}, {found.device}",
    )
    table.add_row("plain", f"{found.plain_seconds:.3f}", f"{found.plain_bytes / 1e6:.0f}")
    table.add_row(
        f"with a teacher of {members}",
        f"{found.distillation_seconds:.3f} (x {found.ratio:.2f})",
        f"{found.distillation_bytes / 1e6:.0f}",
    )
    Console().print(table)
    if check:
        claims = [found.claim()]
        typer.echo(claims_markdown(claims))
        if failed(claims):
            raise typer.Exit(1)


@app.command()
def exchange(
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Task of the network. Can be repeated.", show_default="semantic and depth"
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the image.")] = "640x480",
    scale: Annotated[
        int, typer.Option(min=0, max=4, help="Scale of the block: 0 is full size.")
    ] = 1,
    backbone: Annotated[str, typer.Option(help="Backbone of the network around it.")] = "resnet18",
    rounds: Annotated[int, typer.Option(min=1, help="Measured calls.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Number of CPU threads.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File to write the figures to.")
    ] = None,
) -> None:
    """Measure the cost of a block of DenseMTL's exchange between tasks on the CPU."""
    from emu_perception.benchmark.exchange import exchange_cost
    from emu_perception.evaluation.result import write_json

    found = exchange_cost(
        task or ["semantic", "depth"],
        parse_size(size),
        scale=scale,
        backbone=backbone,
        rounds=rounds,
        threads=threads,
    )
    if json_file is not None:
        write_json(json_file, found.to_dict())
    typer.echo(found.markdown(), nl=False)
