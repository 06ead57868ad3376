"""Reads configurations from YAML files. An unknown key is an error with a suggestion.

A file may name another one in its folder, `extends: other.yaml`, and then holds what differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from emu_perception.text import LINE_LIMIT, one_line
from emu_perception.training.config import TrainConfig
from emu_perception.training.settings import ConfigError
from emu_perception.yaml_file import read_yaml

MAX_PARENTS = 20
"""Files in a chain of `extends`."""


def load_config(path: str | Path, kind: type[BaseModel] = TrainConfig, **overrides: Any) -> Any:
    """Read a YAML file.

    Args:
        path: the file.
        kind: `TrainConfig`, `TableConfig` or `StudyConfig`.
        overrides: top-level values in place of the file's.

    Raises:
        ConfigError: not a mapping, a key is unknown or missing, or a value is out of range.
    """
    path = Path(path)
    try:
        return kind.model_validate({**read_values(path), **overrides})
    except ValidationError as error:
        raise ConfigError(f"{path} cannot be used:\n{explain(kind, error)}") from error


def read_values(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys and values of a YAML file, over those of the file that it `extends`, if it does.

    Raises:
        ConfigError: not a mapping, or what it extends is not there, or extends it in turn.
    """
    try:
        values = read_yaml(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, such as 'seed: 0'")
    if "extends" not in values:
        return values
    named = str(values.pop("extends"))
    parent = path.parent / named
    # As files, not as text: `sub/../a.yaml` is `a.yaml`.
    files = (path.resolve(), *below)
    try:
        resolved, there = parent.resolve(), parent.is_file()
    except (OSError, ValueError):  # too long, or with a zero
        raise ConfigError(
            f"{path} extends '{one_line(named, 60)}', which is no file name"
        ) from None
    if resolved in files:
        raise ConfigError(f"{path} extends {parent}, which extends it")
    if len(files) > MAX_PARENTS:
        raise ConfigError(f"{files[-1]} extends a chain of more than {MAX_PARENTS} files")
    if not there:
        raise ConfigError(f"{path} extends {parent}, which is not there")
    return merged(read_values(parent, files), values)


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `change`; groups are merged, other values replaced."""
    found = dict(base)
    for name, value in change.items():
        before = found.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        found[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return found


def json_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of a configuration file, for editors that complete and check YAML.

    No key is required: a file may have it from the one that it `extends`.
    """
    schema = kind.model_json_schema()
    for group in (schema, *schema.get("$defs", {}).values()):
        group.pop("required", None)
    schema["properties"]["extends"] = {"type": "string"}
    return schema


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """Problems of the keys, a line each."""
    problems = (_explain(kind, each) for each in error.errors())
    lines = (line for problem in problems for line in problem.splitlines())
    return "\n".join(f"  {one_line(line, LINE_LIMIT - 2)}" for line in lines)


def _explain(kind: type[BaseModel], error: Any) -> str:
    location = one_line(".".join(str(part) for part in error["loc"])) or "the whole"
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{location}: {error['msg']}"
    known = _keys_at(kind, error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"{location}: there is no such key{hint}; known: {', '.join(known)}"


def _keys_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys of the group at a location, following the types of the fields."""
    for part in location:
        fields = getattr(kind, "model_fields", {})
        if part in fields:
            kind = fields[part].annotation
        options = [kind]
        while options:
            candidate = options.pop(0)
            if hasattr(candidate, "model_fields") or hasattr(candidate, "__dataclass_fields__"):
                kind = candidate
                break
            options += get_args(candidate)
    fields = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
    return list(fields)
