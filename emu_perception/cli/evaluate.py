"""`emu evaluate` and `emu calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emu_perception.cli.options import (
    DataOptions,
    DeviceOption,
    EngineOption,
    parse_options,
)

ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Model file; several are a Deep Ensemble. Default: the shipped model."
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", "-d", help="Name of the data set; emu data list prints them."),
]
RootOption = Annotated[str | None, typer.Option(help="Folder of the data set.")]
LabelSetOption = Annotated[
    str | None, typer.Option(help="Change the classes of the data set to this label set.")
]
RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Map a class name that differs: DATA=MODEL or DATA=MODEL,MODEL. Can be repeated."
    ),
]
UnmatchedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unmatched", help="Ignore the pixels of classes that --label-set lacks; list them."
    ),
]


def evaluate(
    model: ModelsOption = None,
    dataset: DatasetOption = None,
    root: RootOption = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of the data set.", show_default="the split for reporting"),
    ] = None,
    option: DataOptions = None,
    label_set: LabelSetOption = None,
    rename: RenameOption = None,
    allow_unmatched: UnmatchedOption = False,
    normals_window: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="Pixels (odd) of the neighbourhood for fitting normals; as in training.",
            show_default="5",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="YAML file with the rows of a table of methods.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for an HTML report with diagrams and images.")
    ] = None,
    median_scaled: Annotated[
        bool,
        typer.Option(
            "--median-scaled", help="Scale the depth of each image to the median of its labels."
        ),
    ] = False,
    void_as_inaccurate: Annotated[
        bool,
        typer.Option(
            "--void-as-inaccurate",
            help="Count pixels without ground truth as inaccurate in PAvPU and related metrics.",
        ),
    ] = False,
    depth_class: Annotated[
        list[str] | None,
        typer.Option(
            help="Class whose depth is also scored by itself, at the pixels predicted as it. Can "
            "be repeated.",
            show_default="car, truck, bus",
        ),
    ] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    replicates: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples; 0: no intervals.")
    ] = 1000,
) -> None:
    """Score a model, or the rows of a table, on a data set.

    A single model is scored with the calibration of its file. The glossary of the documentation
    explains the metrics. The JSON of a table is a list with one entry per row.
    """
    import importlib

    from rich.console import Console
    from rich.table import Table

    from emu_perception.atomic import write_text
    from emu_perception.evaluation.result import write_json
    from emu_perception.experiments.table import (
        compare,
        difference_cells,
        table_cells,
    )
    from emu_perception.experiments.table import markdown as table_markdown
    from emu_perception.experiments.table_config import TableConfig, TableRow
    from emu_perception.inference.model_names import DEFAULT_MODEL
    from emu_perception.training.config_file import load_config

    if table is not None:
        own = (model, dataset, root, split, option, label_set, rename, normals_window)
        if any(own) or median_scaled:
            raise typer.BadParameter("--table names models and data set itself, with their options")
        config = load_config(table, TableConfig)
    elif dataset is None:
        raise typer.BadParameter("give --dataset, or --table")
    else:
        model = model or [DEFAULT_MODEL]
        row = TableRow(
            name=Path(model[0]).stem,
            models=model,
            calibration="as stored",
            median_scaled=median_scaled,
        )
        data = _data(dataset, root, split, option, label_set, rename, normals_window)
        _check_classes(data, allow_unmatched)
        config = TableConfig(data=data, rows=[row])
    if void_as_inaccurate:
        config = config.model_copy(update={"void_as_inaccurate": True})
    if depth_class:
        config = config.model_copy(update={"depth_classes": depth_class})
    if report is not None:  # a missing package fails before the work
        importlib.import_module("emu_perception.evaluation.report")
    with _bars() as bars:
        tasks: dict[str, Any] = {}

        def follow(name: str, done: int, total: int) -> None:
            tasks.setdefault(name, bars.add_task(name, total=total) if name not in tasks else None)
            bars.update(tasks[name], completed=done)

        rows = compare(
            config,
            device=device,
            engine=engine,
            replicates=replicates,
            progress=follow,
            report=report,
        )
    for each in rows:
        each |= {"dataset": config.data.name, "split": config.data.split}
    console = Console()
    heads, cells = table_cells(rows)
    if table is None:
        shown = Table("figure", "value", title=f"{cells[0][0]} on {config.data.title}")
        for head, cell in zip(heads[1:], cells[0][1:], strict=True):
            shown.add_row(head, cell)
    else:
        shown = Table(*heads, title=config.data.title)
        for line in cells:
            shown.add_row(*line)
    console.print(shown)
    heads, cells = difference_cells(rows)
    if cells:
        # Figures below one another: intervals are too wide for a terminal's columns.
        compared, *figures = zip(heads, *cells, strict=True)
        shown = Table(*compared)
        for figure in figures:
            shown.add_row(*figure)
        console.print(shown)
    if markdown is not None:
        write_text(markdown, table_markdown(rows))
    if report is not None:
        console.print(f"The report is in {report}.")
    if json is not None:
        write_json(json, rows if table is not None else rows[0])


def calibrate(
    model: Annotated[
        list[str],
        typer.Option("--model", "-m", help="Model file; several are a Deep Ensemble."),
    ],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="Name of the data set; emu data list prints them."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with several data sets as `data`, in place of --dataset and its "
            "options; see config/studies/calibration."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to fit on; never the one for reporting.")
    ] = "calibration",
    root: RootOption = None,
    option: DataOptions = None,
    label_set: LabelSetOption = None,
    rename: RenameOption = None,
    allow_unmatched: UnmatchedOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File to write instead of --model; needed for an ensemble."
        ),
    ] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Fit temperature and depth variance scale on a split and store them in the model file.

    A quantity without ground truth in the split keeps its value: fit the temperature on one data
    set and the variance on another, with two commands or with --config.
    """
    from emu_perception.experiments import assess
    from emu_perception.inference.methods import load_models
    from emu_perception.inference.model_file import is_half, save_model
    from emu_perception.training.config_file import load_config

    if len(model) > 1 and out is None:
        raise typer.BadParameter("several files are one ensemble: give --out for its file")
    if (dataset is None) == (config is None):
        raise typer.BadParameter("give --dataset, or --config with several data sets")
    loaded = load_models(model)
    if dataset is not None:
        data = [_data(dataset, root, split, option, label_set, rename)]
    elif config is not None:
        data = load_config(config, assess.CalibrationConfig).data
    for each in data:
        _check_classes(each, allow_unmatched)
    with _bars() as bars:
        task = bars.add_task("Calibrating")

        def follow(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        fitted = assess.calibrate(loaded, data, device=device, engine=engine, progress=follow)
    save_model(
        out or fitted.path, fitted.network, fitted.spec, half=all(is_half(path) for path in model)
    )
    found = fitted.spec.calibration
    typer.echo(
        f"temperature {found.temperature:.4f}, depth variance x {found.depth_variance_scale:.4f}, "
        f"fitted on {found.fitted_on}"
    )


def _data(
    dataset: str,
    root: str | None,
    split: str | None,
    options: list[str] | None,
    labels: str | None,
    renamed: list[str] | None,
    window: int | None = None,
) -> Any:
    from emu_perception.data import dataset_entry
    from emu_perception.training.data_config import DatasetConfig

    chosen = split or dataset_entry(dataset).evaluation_split
    settings: dict[str, Any] = {} if window is None else {"normals_window": window}
    return DatasetConfig(
        name=dataset,
        root=root,
        split=chosen,
        options=parse_options(options),
        label_set=labels,
        renamed=_renamed(renamed, labels),
        **settings,
    )


def _renamed(texts: list[str] | None, labels: str | None) -> dict[str, str | list[str]]:
    """Parse `--rename` options: the class or classes for each class of the data."""
    if texts and labels is None:
        raise typer.BadParameter("--rename needs --label-set")
    found: dict[str, str | list[str]] = {}
    for text in texts or []:
        old, separator, new = text.partition("=")
        if not (old and separator and new):
            raise typer.BadParameter(f"--rename expects DATA_CLASS=CLASS, got '{text}'")
        names = [name.strip() for name in new.split(",")]
        found[old.strip()] = names[0] if len(names) == 1 else names
    return found


def _check_classes(data: Any, allow_unmatched: bool) -> None:
    """Refuse a label set without a counterpart for a class of the data, or list what is ignored.

    Raises:
        ValueError: a class has no counterpart, and that is not allowed.
    """
    if data.label_set is None:
        return
    from emu_perception.data import ignored_fraction, unmatched_classes
    from emu_perception.labels import load_label_set
    from emu_perception.training.data_module import open_dataset

    source = open_dataset(data.model_copy(update={"label_set": None, "renamed": {}}))
    if source.label_set is None:
        return
    wanted = load_label_set(data.label_set)
    unmatched = unmatched_classes(source.label_set, wanted, data.renamed)
    if not unmatched:
        return
    names = ", ".join(unmatched)
    if not allow_unmatched:
        raise ValueError(
            f"{data.title}: the label set '{wanted.name}' has no counterpart for {names}; their "
            "pixels would not be scored. Map them with --rename CLASS=NEW_CLASS, or accept it with "
            f"--allow-unmatched. '{wanted.name}' has {', '.join(wanted.names)}"
        )
    fraction = ignored_fraction(source, unmatched)
    typer.echo(f"ignored: {names} ({fraction:.1%} of the labelled pixels)", err=True)


def _bars() -> Any:
    from rich.progress import Progress

    return Progress(transient=True)
