"""Houses, gardens and woods along a street, and what closes the view."""

from __future__ import annotations

import numpy as np

from emu_perception.scenes import buildings as houses
from emu_perception.scenes import plants, roadside
from emu_perception.scenes.plan import BEGIN, StreetPlan


def buildings(plan: StreetPlan, side: int) -> None:
    """Fronts, gardens and what closes the view, along one side."""
    rng, d, label = plan.rng, plan.district, plan.label
    land = plan.layout.sides[int(side > 0)]
    base = plan.edge(side) + land.width + 0.1
    setback = rng.uniform(*d.setback)
    wall, shared = None, rng.random() < 0.5
    eaves, turn = rng.uniform(*d.eaves), 0.0 if side > 0 else np.pi
    s = BEGIN - rng.uniform(0, 15)
    while s < plan.end:
        width = rng.uniform(*d.frontage)
        middle = s + width / 2
        if not plan.clear(side, middle, width / 2 + land.width + 0.5):
            behind(plan, side, middle, base + 25)
            s += 3.0
            continue
        stretch = plan.end - s
        if rng.random() < d.built:
            if not shared or wall is None or rng.random() < 0.15:
                wall = houses.WALLS[rng.integers(len(houses.WALLS))] * rng.uniform(0.75, 1.2)
            if rng.random() < 0.35 or plan.name not in ("terrace",):
                eaves = rng.uniform(*d.eaves)
            back = setback + (rng.uniform(0, 3) if d.gap[1] > 1 else 0)
            model = houses.building(
                rng,
                label["building"],
                width,
                rng.uniform(8, 13),
                eaves,
                wall=wall * rng.uniform(0.92, 1.08),
                pitched=bool(rng.random() < d.pitched),
                shop=bool(rng.random() < d.shops),
                modern=bool(rng.random() < d.modern),
                sign=label["sign"],
            )
            plan.put(model, middle, side * (base + back), turn)
            if rng.random() < d.garden and back > 1.2:
                boundary(plan, side, middle, base + 0.2, width + rng.uniform(0, 1))
            if back > 4 and rng.random() < 0.6:
                plan.put(
                    plants.tree(rng, label["tree"], plan.season, rng.uniform(3, 8)),
                    s,
                    side * (base + back * 0.6),
                )
            for _ in range(int(back > 2) * rng.integers(0, 4)):
                at = side * (base + rng.uniform(0.8, back))
                plan.put(
                    plants.bush(rng, label["tree"], plan.season), s + rng.uniform(0, width), at
                )
        elif stretch > 0:
            width = max(width, 12.0)
            if plan.clear(side, s + width / 2, width / 2 + land.width + 0.5):
                open_land(plan, side, s + width / 2, base, width)
        s += width
        gap = rng.uniform(*d.gap)
        if gap > 3:
            behind(plan, side, s + gap / 2, base + setback + rng.uniform(6, 15))
            if rng.random() < d.garden:
                boundary(plan, side, s + gap / 2, base + 0.2, gap)
        s += gap


def boundary(plan: StreetPlan, side: int, s: float, t: float, length: float) -> None:
    """A hedge, a wall or a fence."""
    rng = plan.rng
    kind = rng.choice(["hedge", "wall", "fence"], p=[0.35, 0.30, 0.35])
    if kind == "hedge":
        model = plants.hedge(rng, plan.label["tree"], plan.season, length, rng.uniform(0.7, 2.2))
    elif kind == "wall":
        model = roadside.garden_wall(rng, plan.label["fence"], length)
    else:
        model = roadside.fence(rng, plan.label["fence"], length)
    plan.put(model, s, side * (t + 0.3), 0.0)


def open_land(plan: StreetPlan, side: int, s: float, base: float, width: float) -> None:
    """Woods, a park or a yard instead of a house."""
    rng = plan.rng
    if rng.random() < plan.district.wooded:
        far = base + rng.uniform(3, 22)
        plan.put(
            plants.wood(rng, plan.label["tree"], plan.season, width * 1.3, rng.uniform(6, 16)),
            s,
            side * far,
        )
        for _ in range(rng.integers(0, 3)):
            at = side * rng.uniform(base + 1, far)
            plan.put(
                plants.tree(rng, plan.label["tree"], plan.season),
                s + rng.uniform(-0.5, 0.5) * width,
                at,
            )
    if rng.random() < 0.6:
        boundary(plan, side, s, base + rng.uniform(0, 1), width)


def behind(plan: StreetPlan, side: int, s: float, t: float) -> None:
    """Something further back that closes a gap."""
    rng = plan.rng
    if rng.random() < 0.35:
        plan.put(plants.tree(rng, plan.label["tree"], plan.season, rng.uniform(6, 13)), s, side * t)
    elif rng.random() < 0.35:
        model = houses.building(
            rng, plan.label["building"], rng.uniform(8, 18), 10, rng.uniform(4, 10)
        )
        plan.put(model, s, side * (t + 14), 0.0 if side > 0 else np.pi)


def horizon(plan: StreetPlan) -> None:
    """Objects that close the view at the street's ends and beyond the houses."""
    rng, d = plan.rng, plan.district
    for s, turn in ((plan.end + 15, np.pi / 2), (BEGIN - 40, -np.pi / 2)):
        t = -110.0
        while t < 110:
            width = rng.uniform(12, 30)
            if rng.random() < 0.4 + 0.4 * d.wooded * (d.built < 0.9):
                model = plants.wood(
                    rng, plan.label["tree"], plan.season, width * 1.1, rng.uniform(7, 16)
                )
                plan.put(model, s + rng.uniform(0, 30), t + width / 2, turn)
            else:
                model = houses.building(
                    rng, plan.label["building"], width, 12, rng.uniform(*d.eaves) * 1.2
                )
                plan.put(model, s + rng.uniform(0, 30), t + width / 2, turn)
            t += width
    for side in (-1, 1):
        s = BEGIN - 30
        while s < plan.end:
            width = rng.uniform(18, 40)
            far = rng.uniform(38, 80)
            if rng.random() < 0.5:
                model = plants.wood(
                    rng, plan.label["tree"], plan.season, width * 1.2, rng.uniform(6, 15)
                )
                plan.put(model, s, side * far)
            else:
                model = houses.building(
                    rng, plan.label["building"], width * 0.8, 12, rng.uniform(*d.eaves) * 1.1
                )
                plan.put(model, s, side * far, 0.0 if side > 0 else np.pi)
            s += width
