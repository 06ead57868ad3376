"""Label sets: what the class ids of a model or data set mean, and their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.prediction import UNLABELLED
from emu_perception.resources import find_resource
from emu_perception.yaml_file import read_yaml

HUMAN_PARTS = (
    "background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs",
)  # fmt: skip
"""Classes of the task human_parts, as PASCAL-Context's benchmarks group them."""


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of class ids 0 … C-1; id 255 means unlabelled."""

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    """RGB, 0–255, one per class."""
    without_depth: tuple[str, ...] = ()
    """Classes that have no finite depth, such as sky."""
    finer: Mapping[str, Mapping[str, tuple[str, ...]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Name of another label set -> class of this set -> the classes of the other set that it
    covers, where one class here covers several there or the names differ."""

    def __post_init__(self) -> None:
        where = f"label set '{self.name}'"
        if not 1 <= len(self.names) <= UNLABELLED:
            raise ValueError(f"{where}: needs 1 to {UNLABELLED} classes, got {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{where}: class names must differ from one another")
        if len(self.colors) != len(self.names):
            raise ValueError(
                f"{where}: {len(self.names)} names but {len(self.colors)} colours; give one each"
            )
        for name, color in zip(self.names, self.colors, strict=True):
            if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
                raise ValueError(
                    f"{where}: the colour of '{name}' is not three integers 0–255: {color}"
                )
        unknown = set(self.without_depth) - set(self.names)
        if unknown:
            raise ValueError(f"{where}: without_depth names unknown classes: {sorted(unknown)}")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Class id of a name; KeyError with the known names if there is none."""
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(
                f"label set '{self.name}' has no class '{name}'; it has {', '.join(self.names)}"
            ) from None

    @property
    def palette(self) -> np.ndarray:
        """`(256, 3)` uint8: the colour of every id, black for those without a class."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = np.array(self.colors, np.uint8)
        return palette

    @property
    def without_depth_ids(self) -> tuple[int, ...]:
        """Class ids of `without_depth`."""
        return tuple(self.index(name) for name in self.without_depth)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML or JSON; `from_dict` reads them back."""
        classes = [
            {"name": n, "color": list(c)} | ({"depth": False} if n in self.without_depth else {})
            for n, c in zip(self.names, self.colors, strict=True)
        ]
        return {"name": self.name, "classes": classes}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSet:
        """Read `{"name": …, "classes": [{"name": …, "color": [r, g, b], "depth": bool}, …]}`.

        Raises:
            ValueError: a key is missing or a value is out of range; the message names it.
        """
        try:
            classes = values["classes"]
            return cls(
                name=str(values["name"]),
                names=tuple(str(c["name"]) for c in classes),
                colors=tuple(tuple(c["color"]) for c in classes),
                without_depth=tuple(str(c["name"]) for c in classes if not c.get("depth", True)),
                finer={
                    str(other): {str(name): _names(fine) for name, fine in covered.items()}
                    for other, covered in values.get("finer", {}).items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                "a label set needs 'name' and 'classes', a list of entries with 'name' and "
                f"'color': {error!r}"
            ) from error


def _names(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(name) for name in value)


@cache
def load_label_set(name_or_path: str) -> LabelSet:
    """A shipped label set by name (`camvid`, `cityscapes`, …) or a YAML file by path."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        try:
            path = find_resource("config", "labels", f"{name_or_path}.yaml")
        except FileNotFoundError:
            known = sorted(p.stem for p in find_resource("config", "labels").glob("*.yaml"))
            raise ValueError(
                f"unknown label set '{name_or_path}': give a path or one of {', '.join(known)}"
            ) from None
    return LabelSet.from_dict(read_yaml(path))


def class_mapping(
    source: LabelSet,
    target: LabelSet,
    renamed: Mapping[str, str | Sequence[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Class of `source` -> the classes of `target` that it covers.

    Classes of one name correspond; then `source.finer` counts, then `renamed`.

    Raises:
        ValueError: a class that does not exist is named, or no class has a counterpart.
    """
    same = (name for name in source.names if name in target.names)
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in same}
    found |= source.finer.get(target.name, {})
    for old, new in (renamed or {}).items():
        found[old] = (new,) if isinstance(new, str) else tuple(new)
    for old, classes in found.items():
        if old not in source.names or not classes or not set(classes) <= set(target.names):
            raise ValueError(
                f"cannot rename class '{old}' to '{', '.join(classes)}': '{source.name}' has "
                f"{', '.join(source.names)}; '{target.name}' has {', '.join(target.names)}"
            )
    if not found:
        raise ValueError(f"no class of '{source.name}' has a counterpart in '{target.name}'")
    return found
