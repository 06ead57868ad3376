"""Splits that keep clips apart: a held-out clip, a calibration block, a validation tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from emu_perception.data.dataset import Item
from emu_perception.data.sample import DataError


def hold_out(items: Sequence[Item], clip: str | None, root: Path) -> tuple[list[Item], list[Item]]:
    """Items of the other clips, and those of the clip held out (all and none if it is None).

    Raises:
        DataError: there is no such clip; the message lists the clips.
    """
    clips = sorted({item.clip for item in items})
    if clip is not None and clip not in clips:
        raise DataError.at(root, f"has no clip '{clip}' to hold out; it has {', '.join(clips)}")
    return (
        [item for item in items if item.clip != clip],
        [item for item in items if item.clip == clip],
    )


def tail(
    items: Sequence[Item], fraction: float, group: Callable[[Item], str] = lambda item: ""
) -> tuple[list[Item], list[Item]]:
    """Cut the last fraction of every group off, as a block: neighbouring frames stay together.

    Args:
        items: in their order of recording.
        fraction: share to cut off, in [0, 1).
        group: what to cut separately, such as each drive; by default everything is one group.

    Returns:
        The items that remain, and those cut off.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction to cut off must be in [0, 1), got {fraction}")
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    kept, cut = [], []
    for members in groups.values():
        at = len(members) - round(fraction * len(members))
        kept += members[:at]
        cut += members[at:]
    return kept, cut


def choose_split(split: str, known: dict[str, list[Item]], root: Path) -> list[Item]:
    """The items of a split.

    Raises:
        DataError: the split is unknown, or it is empty.
    """
    if split not in known:
        raise DataError.at(root, f"has no split '{split}'; it has {', '.join(known)}")
    if not known[split]:
        raise DataError.at(root, f"split '{split}' is empty with these options")
    return known[split]
