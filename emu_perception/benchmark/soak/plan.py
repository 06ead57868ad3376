"""The cameras of a soak test, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class CameraPhase:
    """One camera process: started, killed without warning at its end."""

    name: str
    sizes: tuple[tuple[int, int], ...]
    """Heights and widths; several take turns of a second each."""
    rate: float
    """Hz."""
    loop_seconds: float = 0.0
    """Stamps go back to the beginning after so many seconds, as in a looped recording; 0: never."""


PHASES = (
    CameraPhase("640x480", ((480, 640),), 30.0),
    CameraPhase("1920x1080", ((1080, 1920),), 30.0),
    CameraPhase("looped recording", ((480, 640),), 30.0, loop_seconds=4.0),
    CameraPhase("changing sizes", ((480, 640), (360, 640), (480, 480), (240, 320), (63, 97)), 30.0),
)
PHASE_SECONDS = 30.0


def phases() -> Iterator[CameraPhase]:
    """All phases again and again."""
    return itertools.cycle(PHASES)
