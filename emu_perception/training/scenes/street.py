"""Random streets: what stands where, for CamVid's eleven classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from emu_perception.labels import load_label_set
from emu_perception.training.scenes import plants, roadside, traffic
from emu_perception.training.scenes.ground import Junction, Layout, Side
from emu_perception.training.scenes.lighting import Light, daylight
from emu_perception.training.scenes.paving import Paving
from emu_perception.training.scenes.plants import Season
from emu_perception.training.scenes.primitives import Rows, place
from emu_perception.training.scenes.rendering import Scene, Street

BEGIN, END = -45.0, 190.0


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
    "terrace": District(0.24, (5, 8), (4.5, 7), (0, 0), (0, 4), 0.95, 0.15, 0.05, 0.9, 0.6, 0.25, 0.7, 0.6, 0.5, 0.1, (3.0, 4.5)),
    "high_street": District(0.24, (6, 13), (5, 14), (0, 1), (0, 1), 0.95, 0.7, 0.3, 0.5, 0.35, 0.15, 0.1, 0.4, 1.0, 0.0, (3.5, 6.5)),
    "city": District(0.12, (11, 32), (12, 35), (0, 4), (0, 4), 0.92, 0.4, 0.8, 0.05, 0.35, 0.3, 0.1, 0.3, 0.8, 0.1, (4, 8)),
    "suburb": District(0.20, (2.8, 6), (8, 16), (4, 16), (5, 16), 0.75, 0.0, 0.15, 0.9, 0.25, 0.5, 0.6, 0.8, 0.25, 0.6, (3.2, 5.5)),
    "wooded": District(0.12, (3, 6), (10, 16), (15, 50), (12, 25), 0.3, 0.0, 0.2, 0.8, 0.05, 0.6, 0.3, 1.0, 0.1, 0.85, (3.2, 5.5)),
    "retail": District(0.08, (4, 8), (20, 45), (10, 30), (8, 25), 0.7, 0.5, 0.7, 0.2, 0.3, 0.3, 0.25, 0.6, 0.4, 0.3, (4, 8)),
}  # fmt: skip


class StreetBuilder:
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
        curvature = 0.0 if rng.random() < 0.45 else float(rng.choice([-1, 1]) / rng.uniform(110, 700))
        profile = float(np.clip(rng.normal(0, 1.6e-4), -3e-4, 4e-4)) if rng.random() < 0.5 else 0.0
        self.parking = [bool(rng.random() < d.parked * 1.1) for _ in range(2)]
        widths = [rng.uniform(*d.half_width) + (1.6 if p else 0.0) for p in self.parking]
        sides = []
        for _ in range(2):
            verge = float(rng.uniform(0.8, 4)) if rng.random() < d.verge else 0.0
            green = self.name in ("suburb", "wooded") or rng.random() < 0.15
            front = "grass" if green else str(rng.choice(["paved", "gravel", "grass"], p=[0.7, 0.1, 0.2]))
            walk = float(rng.uniform(1.3, 3.2)) if rng.random() < (0.97 if self.name != "wooded" else 0.5) else 0.0
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
            junctions.append(Junction(float(s), half, int(rng.choice([-1, 1, 0], p=[0.4, 0.4, 0.2]))))
            s += rng.uniform(28, 95)
        kerb = float(rng.uniform(0.08, 0.14))
        return Layout(widths[0], widths[1], curvature, profile, (sides[0], sides[1]), tuple(junctions), kerb)

    def paving(self) -> Paving:
        """Random surfaces that suit the district."""
        rng = self.rng
        grey = rng.uniform(0.07, 0.20)
        tint = 1 + rng.normal(0, 0.04, 3)
        slabs = rng.uniform(0.12, 0.34) * np.array([1.0, 0.97, 0.92]) * (1 + rng.normal(0, 0.04, 3))
        width = self.layout.left + self.layout.right
        centre = str(rng.choice(["dashed", "double", "none"], p=[0.5, 0.2, 0.3] if width < 8 else [0.55, 0.35, 0.1]))
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
            stop_lines=tuple(j.s - self.driver_side * 0 - j.half_width - 3 for j in self.layout.junctions if rng.random() < 0.4),
            zebra=bool(rng.random() < 0.4),
            cars_lane=self.lane,
        )

    def put(self, model: Rows, s: float, t: float, turn: float = 0.0, lift: float | None = None) -> None:
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

    def buildings(self, side: int) -> None:
        """Fronts, gardens and what closes the view, along one side."""
        rng, d, label = self.rng, self.district, self.label
        land = self.layout.sides[int(side > 0)]
        base = self.edge(side) + land.width + 0.1
        setback = rng.uniform(*d.setback)
        wall, shared = None, rng.random() < 0.5
        eaves, turn = rng.uniform(*d.eaves), 0.0 if side > 0 else np.pi
        s = BEGIN - rng.uniform(0, 15)
        while s < self.end:
            width = rng.uniform(*d.frontage)
            middle = s + width / 2
            if not self.clear(side, middle, width / 2 + land.width + 0.5):
                self.behind(side, middle, base + 25)
                s += 3.0
                continue
            stretch = self.end - s
            if rng.random() < d.built:
                if not shared or wall is None or rng.random() < 0.15:
                    wall = roadside._WALLS[rng.integers(len(roadside._WALLS))] * rng.uniform(0.75, 1.2)
                if rng.random() < 0.35 or self.name not in ("terrace",):
                    eaves = rng.uniform(*d.eaves)
                back = setback + (rng.uniform(0, 3) if d.gap[1] > 1 else 0)
                model = roadside.building(
                    rng, label["building"], width, rng.uniform(8, 13), eaves, wall=wall * rng.uniform(0.92, 1.08),
                    pitched=bool(rng.random() < d.pitched), shop=bool(rng.random() < d.shops),
                    modern=bool(rng.random() < d.modern), sign=label["sign"],
                )  # fmt: skip
                self.put(model, middle, side * (base + back), turn)
                if rng.random() < d.garden and back > 1.2:
                    self.boundary(side, middle, base + 0.2, width + rng.uniform(0, 1))
                if back > 4 and rng.random() < 0.6:
                    self.put(plants.tree(rng, label["tree"], self.season, rng.uniform(3, 8)), s, side * (base + back * 0.6))
                for _ in range(int(back > 2) * rng.integers(0, 4)):
                    at = side * (base + rng.uniform(0.8, back))
                    self.put(plants.bush(rng, label["tree"], self.season), s + rng.uniform(0, width), at)
            elif stretch > 0:
                width = max(width, 12.0)
                if self.clear(side, s + width / 2, width / 2 + land.width + 0.5):
                    self.open_land(side, s + width / 2, base, width)
            s += width
            gap = rng.uniform(*d.gap)
            if gap > 3:
                self.behind(side, s + gap / 2, base + setback + rng.uniform(6, 15))
                if rng.random() < d.garden:
                    self.boundary(side, s + gap / 2, base + 0.2, gap)
            s += gap

    def boundary(self, side: int, s: float, t: float, length: float) -> None:
        """A hedge, a wall or a fence."""
        rng = self.rng
        kind = rng.choice(["hedge", "wall", "fence"], p=[0.35, 0.30, 0.35])
        if kind == "hedge":
            model = plants.hedge(rng, self.label["tree"], self.season, length, rng.uniform(0.7, 2.2))
        elif kind == "wall":
            model = roadside.garden_wall(rng, self.label["fence"], length)
        else:
            model = roadside.fence(rng, self.label["fence"], length)
        self.put(model, s, side * (t + 0.3), 0.0)

    def open_land(self, side: int, s: float, base: float, width: float) -> None:
        """Woods, a park or a yard instead of a house."""
        rng = self.rng
        if rng.random() < self.district.wooded:
            far = base + rng.uniform(3, 22)
            self.put(plants.wood(rng, self.label["tree"], self.season, width * 1.3, rng.uniform(6, 16)), s, side * far)
            for _ in range(rng.integers(0, 3)):
                at = side * rng.uniform(base + 1, far)
                self.put(plants.tree(rng, self.label["tree"], self.season), s + rng.uniform(-0.5, 0.5) * width, at)
        if rng.random() < 0.6:
            self.boundary(side, s, base + rng.uniform(0, 1), width)

    def behind(self, side: int, s: float, t: float) -> None:
        """Something further back that closes a gap."""
        rng = self.rng
        if rng.random() < 0.35:
            self.put(plants.tree(rng, self.label["tree"], self.season, rng.uniform(6, 13)), s, side * t)
        elif rng.random() < 0.35:
            model = roadside.building(rng, self.label["building"], rng.uniform(8, 18), 10, rng.uniform(4, 10))
            self.put(model, s, side * (t + 14), 0.0 if side > 0 else np.pi)

    def horizon(self) -> None:
        """What closes the view at the street's ends and beyond the houses."""
        rng, d = self.rng, self.district
        for s, turn in ((self.end + 15, np.pi / 2), (BEGIN - 40, -np.pi / 2)):
            t = -110.0
            while t < 110:
                width = rng.uniform(12, 30)
                if rng.random() < 0.4 + 0.4 * d.wooded * (d.built < 0.9):
                    model = plants.wood(rng, self.label["tree"], self.season, width * 1.1, rng.uniform(7, 16))
                    self.put(model, s + rng.uniform(0, 30), t + width / 2, turn)
                else:
                    model = roadside.building(rng, self.label["building"], width, 12, rng.uniform(*d.eaves) * 1.2)
                    self.put(model, s + rng.uniform(0, 30), t + width / 2, turn)
                t += width
        for side in (-1, 1):
            s = BEGIN - 30
            while s < self.end:
                width = rng.uniform(18, 40)
                far = rng.uniform(38, 80)
                if rng.random() < 0.5:
                    model = plants.wood(rng, self.label["tree"], self.season, width * 1.2, rng.uniform(6, 15))
                    self.put(model, s, side * far)
                else:
                    model = roadside.building(rng, self.label["building"], width * 0.8, 12, rng.uniform(*d.eaves) * 1.1)
                    self.put(model, s, side * far, 0.0 if side > 0 else np.pi)
                s += width

    def pavement(self, side: int) -> None:
        """Trees, lamps, signs, bollards, boxes and people between kerb and houses."""
        rng, d, label = self.rng, self.district, self.label
        land, edge = self.layout.sides[int(side > 0)], self.edge(side)
        turn = 0.0 if side > 0 else np.pi
        near = edge + 0.45
        posts: list[tuple[float, float, float, Callable[[], Rows], float]] = [
            # spacing low, high, distance from the kerb, model, turn
            (16, 38, 0.0, lambda: roadside.lamp_post(rng, label["pole"]), turn),
            (9, 40, 0.1, lambda: roadside.sign_post(rng, label["pole"], label["sign"]), 0.0 if side == self.driver_side else np.pi),
        ]  # fmt: skip
        if rng.random() < 0.25:
            posts.append((30, 45, 0.5, lambda: roadside.utility_pole(rng, label["pole"]), 0.0))
        if rng.random() < d.street_trees:
            spacing, back = rng.uniform(6, 22), max(land.verge * 0.5, 0.4)
            size = rng.uniform(4, 11)
            posts.append((spacing * 0.8, spacing * 1.3, back, lambda: plants.tree(rng, label["tree"], self.season, size * rng.uniform(0.8, 1.2)), 0.0))
        if rng.random() < 0.2 * (1 + d.people):
            first, count, pitch = rng.uniform(0, 60), rng.integers(3, 12), rng.uniform(1.2, 2.5)
            for i in range(count):
                if self.clear(side, first + i * pitch, 1):
                    self.put(roadside.bollard(rng, label["pole"]), first + i * pitch, side * near)
        if rng.random() < 0.12 and land.pavement > 0:
            length = rng.uniform(6, 30)
            s = rng.uniform(2, 60)
            if self.clear(side, s, length / 2 + 2):
                self.put(roadside.fence(rng, label["fence"], length), s, side * (edge + 0.35))
        for low, high, back, model, angle in posts:
            s = BEGIN + rng.uniform(0, high)
            while s < self.end - 20:
                if self.clear(side, s, 3.0):
                    self.put(model(), s, side * (near + back), angle + rng.normal(0, 0.06))
                s += rng.uniform(low, high)
        for _ in range(rng.integers(0, 5)):
            self.put(roadside.letter_box(rng, 255), rng.uniform(0, 90), side * (edge + max(land.width - 0.6, 0.6)))
        for junction in self.layout.junctions:
            if rng.random() < 0.5 * d.people + 0.1:
                for offset in (-junction.half_width - 5, junction.half_width + 5):
                    angle = 0.0 if side == self.driver_side else np.pi
                    self.put(roadside.traffic_light(rng, label["pole"], label["sign"]), junction.s + offset, side * near, angle)
        walk = max(land.pavement, 1.0)
        for _ in range(rng.poisson(15 * d.people)):
            s = BEGIN + rng.uniform(0.15, 0.75) * (END - BEGIN)
            group = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.1)
            heading = rng.choice([0.0, np.pi]) + rng.normal(0, 0.3)
            pace = float(np.cos(heading)) * rng.uniform(0.8, 1.5)
            for _ in range(group):
                t = edge + land.verge + rng.uniform(0.3, walk)
                self.put(traffic.person(rng, label["pedestrian"]), s + pace * self.time + rng.normal(0, 0.6), side * t, heading)
        if rng.random() < 0.25 * d.people:
            for _ in range(rng.integers(1, 7)):  # parked bicycles
                s = rng.uniform(2, 70)
                self.put(traffic.bicyclist(rng, label["bicyclist"], rider=False), s, side * (edge + walk * 0.8), rng.uniform(-1.6, 1.6))

    def vehicles(self) -> None:
        """Parked and driving cars, bicyclists, and those who cross."""
        rng, d, label = self.rng, self.district, self.label
        for side in (-1, 1):
            if self.parking[int(side > 0)]:
                s = BEGIN + rng.uniform(0, 10)
                fill = rng.uniform(0.35, 0.95)
                while s < self.end - 60:
                    model, length = traffic.car(rng, label["car"])
                    if length < 6 and rng.random() < fill and self.clear(side, s + length / 2, 4):
                        turn = (np.pi if side != self.driver_side else 0.0) + rng.normal(0, 0.02)
                        self.put(model, s + length / 2, side * (self.edge(side) - 1.05 - rng.uniform(0, 0.2)), turn, 0.0)
                    s += length + rng.uniform(0.5, 1.6)
            elif rng.random() < 0.35:  # drives and yards
                for _ in range(rng.integers(1, 5)):
                    t = self.edge(side) + self.layout.sides[int(side > 0)].width + rng.uniform(2.5, 4)
                    if self.district.setback[1] > 4:
                        self.put(traffic.car(rng, label["car"])[0], rng.uniform(0, 80), side * t, rng.choice([0, 1.57, 3.14, -1.57]))
        ahead = rng.uniform(9, 70)
        flow = rng.uniform(0.2, 1.4) if self.name != "wooded" else 0.3
        pace = rng.uniform(6, 11)
        while ahead < 130:
            if rng.random() < 0.5 * flow:
                self.put(traffic.car(rng, label["car"])[0], ahead + pace * self.time, self.lane + rng.normal(0, 0.15), rng.normal(0, 0.02), 0.0)
            ahead += rng.uniform(9, 45)
        other = -self.driver_side
        free = self.edge(int(other)) - (2.1 if self.parking[int(other > 0)] else 0.0)
        lane = other * float(np.clip(free * 0.5, 1.3, 2.6))
        oncoming = BEGIN + rng.uniform(0, 30)
        while oncoming < 150 + 12 * 12:
            if rng.random() < 0.55 * flow:
                self.put(traffic.car(rng, label["car"])[0], oncoming - pace * self.time, lane + rng.normal(0, 0.15), np.pi + rng.normal(0, 0.02), 0.0)
            oncoming += rng.uniform(10, 45)
        for _ in range(rng.poisson(1.5 * d.people + 0.4)):
            side = float(rng.choice([self.driver_side, other], p=[0.7, 0.3]))
            t = side * (self.edge(int(side)) - (2.2 if self.parking[int(side > 0)] else 0) - rng.uniform(0.5, 1.1))
            along = side == self.driver_side
            step = (4.5 if along else -4.5) * self.time
            self.put(traffic.bicyclist(rng, label["bicyclist"]), rng.uniform(5, 60) + step, t, 0.0 if along else np.pi, 0.0)
        for _ in range(rng.poisson(0.6 * d.people)):
            s, t = rng.uniform(9, 60), rng.uniform(-self.layout.left, self.layout.right)
            heading = rng.choice([np.pi / 2, -np.pi / 2]) + rng.normal(0, 0.4)
            step = -float(np.sign(heading)) * 1.3 * self.time
            self.put(traffic.person(rng, label["pedestrian"]), s, t + step, heading)
        for junction in self.layout.junctions:  # cars in side streets and yards
            for side in (-1, 1):
                if junction.side in (0, side) and rng.random() < 0.6:
                    for _ in range(rng.integers(1, 3 if junction.half_width < 6 else 9)):
                        t = self.edge(side) + rng.uniform(4, 28)
                        across = rng.uniform(-1, 1) * (junction.half_width - 1.2)
                        self.put(traffic.car(rng, label["car"])[0], junction.s + across, side * t, rng.choice([1.57, -1.57]), 0.0)

    def build(self, light: Light | None = None) -> Scene:
        """The whole street."""
        light = light or daylight(self.rng)
        surface = self.paving()
        for side in (-1, 1):
            self.buildings(side)
        self.horizon()
        for side in (-1, 1):
            self.pavement(side)
        self.vehicles()
        label = self.label
        street = Street(self.layout, surface, (label["road"], label["pavement"], label["tree"]), label["sky"])
        return Scene(np.concatenate(self.rows), light, street)
