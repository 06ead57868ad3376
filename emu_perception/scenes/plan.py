"""The plan of a random street: its ground, and where things may stand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emu_perception.labels import load_label_set
from emu_perception.scenes.districts import DISTRICTS
from emu_perception.scenes.ground import (
    Junction,
    Layout,
    Side,
)
from emu_perception.scenes.paving import Paving
from emu_perception.scenes.plants import Season
from emu_perception.scenes.primitives import Rows, place

BEGIN, END = -45.0, 190.0
"""Range of houses and traffic along s, metres."""


class StreetPlan:
    """Puts models along one street. `time` (s) moves the traffic and nothing else."""

    def __init__(self, rng: np.random.Generator, time: float = 0.0, drive: bool = False) -> None:
        self.rng, self.time = rng, time
        names = load_label_set("camvid")
        self.label = {name: names.index(name) for name in names.names}
        keys = list(DISTRICTS)
        shares = np.array([DISTRICTS[k].share for k in keys])
        self.name = str(rng.choice(keys, p=shares / shares.sum()))
        self.district = DISTRICTS[self.name]
        self.end = END if not drive else END + 130
        self.season = Season.random(rng)
        self.layout = self._layout()
        self.driver_side = float(rng.choice([-1.0, 1.0], p=[0.55, 0.45]))
        """Side of the axis that one drives on: -1 left, 1 right."""
        width = self.layout.left if self.driver_side < 0 else self.layout.right
        free = width - (2.1 if self.parking[int(self.driver_side > 0)] else 0.0)
        self.lane = self.driver_side * float(np.clip(free * 0.5, 1.3, 2.6))
        self.rows: list[Rows] = []
        self.instances = 0

    def _layout(self) -> Layout:
        rng, d = self.rng, self.district
        curvature = (
            0.0 if rng.random() < 0.45 else float(rng.choice([-1, 1]) / rng.uniform(110, 700))
        )
        profile = float(np.clip(rng.normal(0, 1.6e-4), -3e-4, 4e-4)) if rng.random() < 0.5 else 0.0
        self.parking = [bool(rng.random() < d.parked * 1.1) for _ in range(2)]
        widths = [rng.uniform(*d.half_width) + (1.6 if p else 0.0) for p in self.parking]
        sides = []
        for _ in range(2):
            verge = float(rng.uniform(0.8, 4)) if rng.random() < d.verge else 0.0
            green = self.name in ("suburb", "wooded") or rng.random() < 0.15
            front = (
                "grass"
                if green
                else str(rng.choice(["paved", "gravel", "grass"], p=[0.7, 0.1, 0.2]))
            )
            walk = (
                float(rng.uniform(1.3, 3.2))
                if rng.random() < (0.97 if self.name != "wooded" else 0.5)
                else 0.0
            )
            if self.name in ("high_street", "city"):
                walk += float(rng.uniform(0.5, 2.5))
            side = Side(verge, walk, front)
            if curvature == 0 and front == "grass" and rng.random() < 0.4:
                start = max(widths) + verge + walk + float(rng.uniform(0.5, 3))
                side = replace(side, bank_start=start, bank_slope=float(rng.uniform(0.04, 0.22)))
            sides.append(side)
        junctions, s = [], BEGIN + rng.uniform(0, 60)
        while s < self.end:
            half = float(rng.uniform(2.6, 5.0) if self.name != "retail" else rng.uniform(3, 16))
            junctions.append(
                Junction(float(s), half, int(rng.choice([-1, 1, 0], p=[0.4, 0.4, 0.2])))
            )
            s += rng.uniform(28, 95)
        kerb = float(rng.uniform(0.08, 0.14))
        return Layout(
            widths[0], widths[1], curvature, profile, (sides[0], sides[1]), tuple(junctions), kerb
        )

    def paving(self) -> Paving:
        """Random surfaces that suit the district."""
        rng = self.rng
        grey = rng.uniform(0.07, 0.20)
        tint = 1 + rng.normal(0, 0.04, 3)
        slabs = rng.uniform(0.12, 0.34) * np.array([1.0, 0.97, 0.92]) * (1 + rng.normal(0, 0.04, 3))
        width = self.layout.left + self.layout.right
        centre = str(
            rng.choice(
                ["dashed", "double", "none"], p=[0.5, 0.2, 0.3] if width < 8 else [0.55, 0.35, 0.1]
            )
        )
        return Paving(
            asphalt=tuple(grey * tint),
            slabs=tuple(slabs) if rng.random() < 0.8 else tuple(grey * 1.1 * tint),
            grass=tuple(np.array([0.075, 0.125, 0.035]) * rng.uniform(0.6, 1.4)),
            dry_grass=tuple(np.array([0.20, 0.17, 0.09]) * rng.uniform(0.6, 1.4)),
            markings=float(rng.uniform(0.3, 1.0)),
            centre=centre,
            edges=str(rng.choice(["none", "line", "double_yellow"], p=[0.4, 0.3, 0.3])),
            lanes=tuple(np.array([-1.0, 1.0]) * width * 0.25) if width > 11 else (),
            roughness=float(rng.uniform(0.2, 1.1)),
            patches=float(rng.uniform(0, 0.25)),
            wetness=float(rng.uniform(0.1, 0.7)) if rng.random() < 0.16 else 0.0,
            leaves=float(rng.uniform(0.05, 0.5)) if rng.random() < 0.3 else 0.0,
            stop_lines=tuple(
                j.s - j.half_width - 3 for j in self.layout.junctions if rng.random() < 0.4
            ),
            zebra=bool(rng.random() < 0.4),
            cars_lane=self.lane,
        )

    def put(
        self, model: Rows, s: float, t: float, turn: float = 0.0, lift: float | None = None
    ) -> None:
        """A model at street coordinates; `turn` counter-clockwise from the street's direction."""
        x, y, heading = self.layout.world(s, t)
        z = self.layout.surface(s, t) if lift is None else self.layout.height(s, t) + lift
        self.instances += 1
        self.rows.append(place(model, (x, y, z), turn - heading, instance=self.instances))

    def edge(self, side: int) -> float:
        """Distance of a kerb from the axis."""
        return self.layout.left if side < 0 else self.layout.right

    def clear(self, side: int, s: float, margin: float) -> bool:
        """No side street within `margin` of `s` on that side."""
        return all(
            abs(s - j.s) > j.half_width + margin or j.side == -side for j in self.layout.junctions
        )
