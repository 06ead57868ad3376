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
DatasetOption = Annotated[str | None, typer.Option("--dataset", "-d", help="See emu data list.")]
RootOption = Annotated[str | None, typer.Option(help="Folder that the data set lies in.")]
LabelSetOption = Annotated[
    str | None, typer.Option(help="Change the classes of the data set to this label set.")
]
RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        help="DATA_CLASS=CLASS[,CLASS...] of --label-set, where names differ. Can be repeated."
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
    split: Annotated[str | None, typer.Option(help="By default the one to report on.")] = None,
    option: DataOptions = None,
    label_set: LabelSetOption = None,
    rename: RenameOption = None,
    allow_unmatched: UnmatchedOption = False,
    normals_window: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="Pixels, odd: where normals are derived from depth, the neighbourhood of a fit; "
            "that of the model's training data.",
            show_default="5",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="YAML with the rows of a table of methods.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report as a page: diagrams, worst images.")
    ] = None,
    median_scaled: Annotated[
        bool,
        typer.Option("--median-scaled", help="Scale each image's depth to its labels' median."),
    ] = False,
    void_as_inaccurate: Annotated[
        bool,
        typer.Option(
            "--void-as-inaccurate",
            help="Count pixels without truth as inaccurate in p(accurate|certain) and its like.",
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
    replicates: Annotated[int, typer.Option(min=0, help="Bootstrap draws; 0: none.")] = 1000,
) -> None:
    """Score a model, or the rows of a table, on a data set.

    A single model is scored with the calibration that its file holds. What the keys of the JSON
    mean, `emu_perception/evaluation/result.py` says; that of a table is a list, with `name`.
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
    from emu_perception.inference.model_file import default_model_path
    from emu_perception.training.config_file import load_config

    if table is not None:
        own = (model, dataset, root, split, option, label_set, rename, normals_window)
        if any(own) or median_scaled:
            raise typer.BadParameter("--table names models and data set itself, with their options")
        config = load_config(table, TableConfig)
    elif dataset is None:
        raise typer.BadParameter("give --dataset, or --table")
    else:
        model = model or [default_model_path().name]
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
    if report is not None:  # what it needs had better be missing before the work than after it
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
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="See emu data list.")],
    split: Annotated[str, typer.Option(help="Never the one that you report on.")] = "calibration",
    root: RootOption = None,
    option: DataOptions = None,
    label_set: LabelSetOption = None,
    rename: RenameOption = None,
    allow_unmatched: UnmatchedOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write here, in place of the file; an ensemble of files needs it."
        ),
    ] = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
) -> None:
    """Fit temperature and depth variance scale on a split and store them in the model file.

    What the split has no ground truth for stays as it was: fit the temperature on one data set and
    the variance on another by two commands.
    """
    from emu_perception.experiments import assess
    from emu_perception.inference.methods import load_models
    from emu_perception.inference.model_file import is_half, save_model

    if len(model) > 1 and out is None:
        raise typer.BadParameter("several files are one ensemble: say with --out where to write it")
    loaded = load_models(model)
    data = _data(dataset, root, split, option, label_set, rename)
    _check_classes(data, allow_unmatched)
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
