"""Help texts at 80 columns: they fit, and every option is explained."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from emu_perception.cli import app


def commands(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found = {path: command}
    for name, below in getattr(command, "commands", {}).items():
        found |= commands(below, (*path, name))
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_80_columns(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 80
    for parameter in COMMANDS[path].params:
        name = next((o for o in parameter.opts if o.startswith("--")), None)
        if name and name != "--help":
            assert name in shown.output
            assert (parameter.help or "").endswith((".", ")")), f"{name}: {parameter.help}"


def test_short_options_mean_the_same_everywhere() -> None:
    meanings: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for parameter in command.params:
            short = [o for o in parameter.opts if o.startswith("-") and not o.startswith("--")]
            long = [o for o in parameter.opts if o.startswith("--")]
            for option in short:
                meanings.setdefault(option, set()).update(long)
    several = {option: names for option, names in meanings.items() if len(names) > 1}
    assert several in ({}, {"-n": {"--count", "--members"}}), several
