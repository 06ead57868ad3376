"""Characters of streets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class District:
    """The character of a street; ranges are (low, high), shares and densities 0–1."""

    share: float
    eaves: tuple[float, float]
    """Height of the eaves, metres."""
    frontage: tuple[float, float]
    gap: tuple[float, float]
    setback: tuple[float, float]
    """Pavement's edge to the front, metres."""
    built: float
    shops: float
    modern: float
    pitched: float
    parked: float
    street_trees: float
    garden: float
    """Hedges, walls and fences between pavement and houses."""
    wooded: float
    """Woods where nothing is built."""
    people: float
    verge: float
    half_width: tuple[float, float]


DISTRICTS = {
    "terrace": District(
        0.24,
        (5, 8),
        (4.5, 7),
        (0, 0),
        (0, 4),
        0.95,
        0.15,
        0.05,
        0.9,
        0.6,
        0.25,
        0.7,
        0.6,
        0.5,
        0.1,
        (3.0, 4.5),
    ),
    "high_street": District(
        0.24,
        (6, 13),
        (5, 14),
        (0, 1),
        (0, 1),
        0.95,
        0.7,
        0.3,
        0.5,
        0.35,
        0.15,
        0.1,
        0.4,
        1.0,
        0.0,
        (3.5, 6.5),
    ),
    "city": District(
        0.12,
        (11, 32),
        (12, 35),
        (0, 4),
        (0, 4),
        0.92,
        0.4,
        0.8,
        0.05,
        0.35,
        0.3,
        0.1,
        0.3,
        0.8,
        0.1,
        (4, 8),
    ),
    "suburb": District(
        0.20,
        (2.8, 6),
        (8, 16),
        (4, 16),
        (5, 16),
        0.75,
        0.0,
        0.15,
        0.9,
        0.25,
        0.5,
        0.6,
        0.8,
        0.25,
        0.6,
        (3.2, 5.5),
    ),
    "wooded": District(
        0.12,
        (3, 6),
        (10, 16),
        (15, 50),
        (12, 25),
        0.3,
        0.0,
        0.2,
        0.8,
        0.05,
        0.6,
        0.3,
        1.0,
        0.1,
        0.85,
        (3.2, 5.5),
    ),
    "retail": District(
        0.08,
        (4, 8),
        (20, 45),
        (10, 30),
        (8, 25),
        0.7,
        0.5,
        0.7,
        0.2,
        0.3,
        0.3,
        0.25,
        0.6,
        0.4,
        0.3,
        (4, 8),
    ),
}
