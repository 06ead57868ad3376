"""Groups of settings in which an unknown key is an error."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the key."""


class Strict(BaseModel):
    """A group of settings without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def expand(path: str) -> Path:
    """A path with `~` and environment variables filled in; ConfigError for an unset variable."""
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ConfigError(f"'{path}' names an environment variable that is not set")
    return Path(expanded).expanduser()
