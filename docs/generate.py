"""Writes the reference pages of commands, configuration keys, studies and class ids."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def write_reference(folder: Path) -> None:
    """Write all pages into a folder, where they have changed."""
    folder.mkdir(exist_ok=True)
    pages = {
        "commands": commands_page(),
        "configuration": configuration_page(),
        "studies": studies_page(),
        "classes": classes_page(),
    }
    for name, text in pages.items():
        file = folder / f"{name}.md"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def classes_page() -> str:
    """Return the class ids of all shipped label sets with their colours as Markdown."""
    from emu_perception.labels import load_label_set

    lines = [
        "# Class ids",
        "",
        "The class id of a pixel is the place of its class in the label set of the model, counted",
        "from 0; 255 means unlabelled. `emu model info MODEL` and the node's parameter",
        "`class_names` give the classes of a model. The default model has those of `cityscapes`.",
        "",
    ]
    for path in sorted((Path(__file__).parents[1] / "config" / "labels").glob("*.yaml")):
        classes = load_label_set(str(path))
        lines += [f"## {classes.name}", "", f"`config/labels/{path.name}`", ""]
        lines += ["| id | class | colour (R, G, B) | depth |", "|---|---|---|---|"]
        for number, (name, color) in enumerate(zip(classes.names, classes.colors)):
            shown = ", ".join(map(str, color))
            swatch = f'<span style="color: rgb({shown})">&#9632;</span>'
            depth = "none" if name in classes.without_depth else ""
            lines.append(f"| {number} | {name} | {swatch} {shown} | {depth} |")
        lines.append("")
    return "\n".join(lines)


def commands_page() -> str:
    """Return all commands with their arguments and options as Markdown."""
    from emu_perception.cli import app

    lines = ["# Commands", "", "`emu COMMAND --help` prints the same in the terminal.", ""]
    for name, command in commands(typer.main.get_command(app), "emu"):
        if name == "emu":
            continue
        lines += [f"## {name}", "", *_paragraphs(command.help or ""), ""]
        rows = [row for p in command.params if (row := _option_row(p)) and "--help" not in row]
        if rows:
            lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the full names of a command and all below it."""
    yield name, command
    for below in getattr(command, "commands", {}).values():  # Typer may bring its own Click
        yield from commands(below, f"{name} {below.name}")


def _option_row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if is_argument else ", ".join(parameter.opts)
    help_text = getattr(parameter, "help", "") or ""
    shown = getattr(parameter, "show_default", None)
    default = shown if isinstance(shown, str) else parameter.default
    if default in (None, False, "", ...) or callable(default):
        default = "required" if parameter.required else ""
    return f"| `{name}` | {default} | {_cell(help_text)} |"


def studies_page() -> str:
    """Return the list of all studies as Markdown: question, size, and where their figures stand."""
    from emu_perception.resources import find_resource

    lines = [
        "# Studies",
        "",
        "All studies that the package defines, each with its command in its file.",
    ]
    lines += ["", "| study | question | rows | seeds | figures |", "|---|---|---|---|---|"]
    for path in sorted(find_resource("config", "studies").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        comment = " ".join(line[2:] for line in text.split("# emu ")[0].splitlines())
        question = values.get("title") or re.split(r"(?<=[.?]) ", comment)[0]
        rows, seeds = (len(values.get(key, ())) or "–" for key in ("rows", "seeds"))
        lines.append(
            f"| `{path.stem}` | {_cell(question)} | {rows} | {seeds} | {_figures(path.name)} |"
        )
    return "\n".join([*lines, ""])


def _figures(name: str) -> str:
    """The link to the page that has a table below the study's command."""
    for page in sorted(Path(__file__).parent.glob("results/*.md")):
        for part in page.read_text(encoding="utf-8").split("--config config/studies/")[1:]:
            if part.startswith(name) and "|---|" in part:
                return f"[{page.stem}](../results/{page.name})"
    cards = Path(__file__).parents[1].joinpath("models", "README.md").read_text(encoding="utf-8")
    return "[model cards](../model_cards.md)" if f"config/studies/{name}" in cards else "none yet"


def configuration_page() -> str:
    """Return the keys of all configuration files as Markdown."""
    from emu_perception.experiments import study_config, table_config
    from emu_perception.training import config

    lines = [
        "# Configuration keys",
        "",
        "An unknown key is an error that names the nearest known one. `extends: other.yaml` takes",
        "all values of another file in the same folder; groups are merged key by key. `~` and",
        "`$VARIABLES` in paths are replaced. Sizes are `[height, width]` in pixels.",
        "",
    ]
    roots = (
        ("emu train, emu distill", config.TrainConfig),
        ("emu evaluate --table", table_config.TableConfig),
        ("emu study", study_config.StudyConfig),
    )
    seen: set[type] = set()
    for title, root in roots:
        lines += [f"## {title}", ""]
        for path, model in _groups(root, "", seen):
            lines += _group_table(path, model)
    return "\n".join(lines)


def _groups(model: type[BaseModel], path: str, seen: set[type]) -> Iterator[tuple[str, type]]:
    """Yield a model and the groups below it, each class once."""
    if model in seen:
        return
    seen.add(model)
    yield path, model
    for name, field in model.model_fields.items():
        for below in _models(field.annotation):
            yield from _groups(below, f"{path}{name}.", seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _group_table(path: str, model: type[BaseModel]) -> list[str]:
    described = attribute_docstrings(model)
    title = f"### `{path.rstrip('.')}`" if path else ""
    lines = [title, "", *_paragraphs(inspect.cleandoc(model.__doc__ or "")), ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"`{default!r}`"
        if isinstance(default, BaseModel):
            shown = "see below"
        kind = _cell(_type_name(field.annotation))
        lines.append(f"| `{path}{name}` | {kind} | {shown} | {_cell(described.get(name, ''))} |")
    return [*lines, ""]


def attribute_docstrings(model: type) -> dict[str, str]:
    """Return the strings that follow the fields of a class, by field, base classes included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__[:-1]):
        if not cls.__module__.startswith("emu_perception"):
            continue
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:]):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = str(text.value.value)  # type: ignore[union-attr]
    return found


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(a) for a in get_args(annotation))
    if annotation is type(None):
        return "none"
    if origin is not None and "Literal" in str(origin):
        return ", ".join(str(a) for a in get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return _type_name(annotation.__origin__)
    if origin is not None:
        inner = ", ".join(_type_name(a) for a in get_args(annotation) if a is not Ellipsis)
        return f"{origin.__name__} of {inner}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "group"
    return getattr(annotation, "__name__", str(annotation))


def _paragraphs(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n")]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def parameter_table() -> str:
    """The parameters as a Markdown table, for the documentation."""
    from emu_perception.ros.settings import COLORMAP_NAMES, FIELDS

    rows = ["| parameter | default | range | change | meaning |", "|---|---|---|---|---|"]
    for name, spec in FIELDS.items():
        limits, choices = spec.metadata["limits"], spec.metadata["choices"]
        allowed = f"{limits[0]:g} – {limits[1]:g}" if limits else ""
        if choices:
            allowed = "a colour map" if choices is COLORMAP_NAMES else ", ".join(choices)
        default = str(spec.default).lower() if isinstance(spec.default, bool) else spec.default
        if isinstance(default, tuple):
            default = str(list(default)).replace("'", '"')
        rows.append(
            f"| `{name}` | `{default if default != '' else chr(34) * 2}` | {allowed} | "
            f"{spec.metadata['change']} | {spec.metadata['description']} |"
        )
    return "\n".join(rows)
