"""The command line: `emu`."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from emu_perception.cli import (
    bag,
    benchmark,
    data,
    domain,
    evaluate,
    export,
    fuzz,
    model,
    predict,
    results,
    scenes,
    soak,
    study,
    train,
)
from emu_perception.cli.demo import command as demo
from emu_perception.interrupt import INTERRUPTED
from emu_perception.plugins import TASK_GROUP, load_plugins
from emu_perception.text import printable, shortened

MESSAGE_LIMIT = 3000
"""Characters of an error message."""
OS_ERRORS = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, expected a folder",
    errno.EISDIR: "this is a folder, expected a file",
    errno.EEXIST: "this exists already",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}
"""Errors of files and folders in words."""
EXTRAS = {
    "rosbags": "bags",
    "matplotlib": "report",
    "jinja2": "report",
    "rclpy": "ros",
    "lightning": "train",
    "h5py": "train",
    "scipy": "train",
    "skimage": "train",
    "tensorboard": "train",
    "transformers": "benchmark",
    "torch": "torch",
    "timm": "torch",
    "safetensors": "torch",
    "onnx": "onnxruntime",
    "onnxruntime": "onnxruntime",
}
"""Optional modules, with the extra that installs them."""

USE, RECORDINGS, TRAIN, EVALUATE, DEVELOP = "Use", "Recordings", "Train", "Evaluate", "Develop"
HEADINGS = (USE, RECORDINGS, TRAIN, EVALUATE, DEVELOP)
"""Headings of `emu --help`, in this order."""


class _InOrder(TyperGroup):
    """Lists commands heading by heading; Typer would list groups of commands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        def heading(name: str) -> int:
            return HEADINGS.index(getattr(self.commands[name], "rich_help_panel", USE))

        return sorted(super().list_commands(ctx), key=heading)


# Tracebacks need --debug; an error that users can correct is one line.
app = typer.Typer(
    name="emu",
    cls=_InOrder,
    help="Semantic class, metric depth and the uncertainty of both, from one camera image.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # fills lines up to the terminal's width
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", rich_help_panel=USE)(demo.demo)
app.command("predict", rich_help_panel=USE)(predict.predict)
app.add_typer(model.app, name="model", rich_help_panel=USE)
app.command("export", rich_help_panel=USE)(export.export)
app.add_typer(bag.app, name="bag", rich_help_panel=RECORDINGS)
app.add_typer(train.app, name="train", rich_help_panel=TRAIN)
app.command("distill", rich_help_panel=TRAIN)(train.distill)
app.command("calibrate", rich_help_panel=TRAIN)(evaluate.calibrate)
app.add_typer(domain.app, name="domain", rich_help_panel=TRAIN)
app.add_typer(data.app, name="data", rich_help_panel=TRAIN)
app.command("scenes", rich_help_panel=TRAIN)(scenes.scenes)
app.command("evaluate", rich_help_panel=EVALUATE)(evaluate.evaluate)
app.command("study", rich_help_panel=EVALUATE)(study.study)
app.command("results", rich_help_panel=EVALUATE)(results.results)
app.add_typer(benchmark.app, name="benchmark", rich_help_panel=DEVELOP)
app.command("soak", rich_help_panel=DEVELOP)(soak.soak)
app.command("fuzz", rich_help_panel=DEVELOP)(fuzz.fuzz)


class _Echo(logging.Handler):
    """Writes messages of this package to the terminal, and warnings of others."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("emu_perception") or record.levelno >= logging.WARNING:
            typer.echo(self.format(record), err=True)


def _show_version(requested: bool) -> None:
    if requested:
        from emu_perception import __version__

        print(f"emu_perception {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,
) -> None:
    if debug:
        os.environ["EMU_DEBUG"] = "1"
    logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[_Echo()])


def main() -> None:
    """Run `emu`. Errors that users can correct are one line, with exit status 1."""
    try:
        load_plugins(TASK_GROUP)
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if _interrupted(error):
            sys.exit(INTERRUPTED)
        message = _explanation(error)
        if os.environ.get("EMU_DEBUG") or message is None:
            raise
        text = printable(shortened(message, MESSAGE_LIMIT))
        Console(stderr=True).print(Text.assemble(("Error: ", "bold red"), text), soft_wrap=True)
        sys.exit(1)


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error came of Ctrl-C: extension modules turn it into an ImportError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _explanation(error: Exception) -> str | None:
    """Return the message for the user; None for a programming error."""
    from emu_perception.processes import ProcessError

    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in EXTRAS:
            extra = EXTRAS[module]
            return f"{module} is not installed: install emu_perception with its extra [{extra}]"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.errno is not None:
        return _os_message(error)
    # ValueError covers bags, model files, label sets and configurations.
    return str(error) if isinstance(error, ValueError | OSError | ProcessError) else None


def _os_message(error: OSError) -> str:
    """Describe what the operating system refused; without a file's name where it gives none."""
    reason = OS_ERRORS.get(error.errno or 0, error.strerror or str(error))
    return reason if error.filename is None else f"{error.filename}: {reason}"
