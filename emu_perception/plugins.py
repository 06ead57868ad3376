"""Plug-ins: modules of other packages that register data sets or tasks when they are imported."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points

DATASET_GROUP = "emu_perception.datasets"
"""Entry point group of modules that register data sets; loaded when a data set is looked up."""
TASK_GROUP = "emu_perception.tasks"
"""Entry point group of modules that register tasks; loaded when `emu` or the node starts."""


@cache
def load_plugins(group: str) -> None:
    """Import the modules of an entry point group; warns of each that cannot be loaded."""
    for plugin in entry_points(group=group):
        try:
            plugin.load()
        except Exception as error:
            warnings.warn(
                f"plug-in '{plugin.name}' ({plugin.value}) cannot be loaded: {error}", stacklevel=2
            )
