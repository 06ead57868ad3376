"""Registry of data sets by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from emu_perception.data.dataset import Dataset, Problem
from emu_perception.data.sample import DataError
from emu_perception.plugins import DATASET_GROUP, load_plugins

Builder = Callable[..., Dataset]


@dataclass(frozen=True)
class DatasetEntry:
    """A registered data set."""

    name: str
    summary: str
    build: Builder
    """`(root: Path, *, split: str, **options) -> Dataset`."""
    needs_root: bool
    """False: the data set can do without a folder, and its builder takes None for it."""
    splits: tuple[str, ...]
    """The splits that hold all files between them: what a check reads."""
    evaluation_split: str
    """Split for reporting, unless one is named."""
    variants: tuple[Mapping[str, Any], ...] = field(default=({},))
    """Options that a check tries in turn, such as both label sets."""

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The builder's options except root and split, with their types and defaults."""
        parameters = inspect.signature(self.build).parameters
        return {n: p for n, p in parameters.items() if n not in ("root", "split")}

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The values of options in the builder's types; ValueError for one of another kind."""
        types = get_type_hints(self.build)
        values = {}
        for option, value in options.items():
            try:
                values[option] = TypeAdapter(types[option]).validate_python(value)
            except ValidationError as error:
                what = error.errors()[0]["msg"]
                raise ValueError(
                    f"data set '{self.name}': option {option}={value!r} does not suit: {what}"
                ) from error
        return values


_ENTRIES: dict[str, DatasetEntry] = {}


def register_dataset(
    name: str,
    *,
    splits: tuple[str, ...],
    evaluation_split: str,
    variants: tuple[Mapping[str, Any], ...] = ({},),
    needs_root: bool = True,
) -> Callable[[Builder], Builder]:
    """Decorator: make a builder known under a name; its docstring's first line is the summary."""

    def register(builder: Builder) -> Builder:
        summary = (inspect.getdoc(builder) or "").partition("\n")[0]
        _ENTRIES[name] = DatasetEntry(
            name, summary, builder, needs_root, splits, evaluation_split, variants
        )
        return builder

    return register


def dataset_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    load_plugins(DATASET_GROUP)
    return tuple(sorted(_ENTRIES))


def dataset_entry(name: str) -> DatasetEntry:
    """The entry of a name; ValueError suggesting the nearest known one."""
    load_plugins(DATASET_GROUP)
    if name not in _ENTRIES:
        raise ValueError(
            f"unknown data set '{name}'{_nearest(name, _ENTRIES)}; "
            f"known: {', '.join(dataset_names())}"
        )
    return _ENTRIES[name]


def build_dataset(name: str, root: str | Path | None, split: str, /, **options: Any) -> Dataset:
    """A data set by name.

    Raises:
        ValueError: the name or an option is unknown, or an option's value does not suit.
        DataError: the root does not hold the data set (also a ValueError).
    """
    entry = dataset_entry(name)
    for option in options:
        if option not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise ValueError(
                f"data set '{name}' has no option '{option}'{_nearest(option, entry.options)}; "
                f"its options: {known}"
            )
    if root is None and entry.needs_root:
        raise ValueError(f"data set '{name}' needs a root: the folder it lies in")
    given = entry.checked(options)
    return entry.build(None if root is None else Path(root).expanduser(), split=split, **given)


def check_dataset(
    name: str,
    root: str | Path,
    /,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[Problem]:
    """Read every file of a data set and list what is missing or broken, file by file.

    Args:
        name: of a registered data set.
        root: the folder it lies in.
        progress: called with (samples done, samples in all) of the split being read.
        options: of the data set, in place of those that a check tries on its own.

    Returns:
        The problems, each once; those with `fatal` False do not stop training. That there was
        nothing to read is one.
    """
    entry = dataset_entry(name)
    found: dict[Problem, None] = {}
    stored = 0
    for variant in (options,) if options else entry.variants:
        for split in entry.splits:
            try:
                dataset = build_dataset(name, root, split, **variant)
                stored += dataset.stored()
                found.update(dict.fromkeys(dataset.problems(progress)))
            except DataError as error:
                found[Problem.of(error, root)] = None
    if not stored and not any(problem.fatal for problem in found):
        found[Problem(str(root), f"holds nothing to read with {_shown(entry, options)}")] = None
    return list(found)


def _shown(entry: DatasetEntry, options: Mapping[str, Any]) -> str:
    """The options of a data set as they are."""
    values = {name: options.get(name, p.default) for name, p in entry.options.items()}
    texts = (f"{name}={value}" for name, value in values.items())
    return f"the options {', '.join(texts)}; give those that it was made with"


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""
