"""Who and what is on the street: posts, plants, people, cars and bicyclists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emu_perception.scenes import (
    people,
    plants,
    roadside,
)
from emu_perception.scenes import vehicles as motors
from emu_perception.scenes.plan import (
    BEGIN,
    END,
    StreetPlan,
)
from emu_perception.scenes.primitives import Rows


def pavement(plan: StreetPlan, side: int) -> None:
    """Trees, lamps, signs, bollards, boxes and people between kerb and houses."""
    rng, d, label = plan.rng, plan.district, plan.label
    land, edge = plan.layout.sides[int(side > 0)], plan.edge(side)
    turn = 0.0 if side > 0 else np.pi
    near = edge + 0.45
    posts: list[tuple[float, float, float, Callable[[], Rows], float]] = [
        # spacing low, high, distance from the kerb, model, turn
        (16, 38, 0.0, lambda: roadside.lamp_post(rng, label["pole"]), turn),
        (
            9,
            40,
            0.1,
            lambda: roadside.sign_post(rng, label["pole"], label["sign"]),
            0.0 if side == plan.driver_side else np.pi,
        ),
    ]
    if rng.random() < 0.25:
        posts.append((30, 45, 0.5, lambda: roadside.utility_pole(rng, label["pole"]), 0.0))
    if rng.random() < d.street_trees:
        spacing, back = rng.uniform(6, 22), max(land.verge * 0.5, 0.4)
        size = rng.uniform(4, 11)
        posts.append(
            (
                spacing * 0.8,
                spacing * 1.3,
                back,
                lambda: plants.tree(rng, label["tree"], plan.season, size * rng.uniform(0.8, 1.2)),
                0.0,
            )
        )
    if rng.random() < 0.2 * (1 + d.people):
        first, count, pitch = rng.uniform(0, 60), rng.integers(3, 12), rng.uniform(1.2, 2.5)
        for i in range(count):
            if plan.clear(side, first + i * pitch, 1):
                plan.put(roadside.bollard(rng, label["pole"]), first + i * pitch, side * near)
    if rng.random() < 0.12 and land.pavement > 0:
        length = rng.uniform(6, 30)
        s = rng.uniform(2, 60)
        if plan.clear(side, s, length / 2 + 2):
            plan.put(roadside.fence(rng, label["fence"], length), s, side * (edge + 0.35))
    for low, high, back, model, angle in posts:
        s = BEGIN + rng.uniform(0, high)
        while s < plan.end - 20:
            if plan.clear(side, s, 3.0):
                plan.put(model(), s, side * (near + back), angle + rng.normal(0, 0.06))
            s += rng.uniform(low, high)
    for _ in range(rng.integers(0, 5)):
        plan.put(
            roadside.letter_box(rng, 255),
            rng.uniform(0, 90),
            side * (edge + max(land.width - 0.6, 0.6)),
        )
    for junction in plan.layout.junctions:
        if rng.random() < 0.5 * d.people + 0.1:
            for offset in (-junction.half_width - 5, junction.half_width + 5):
                angle = 0.0 if side == plan.driver_side else np.pi
                plan.put(
                    roadside.traffic_light(rng, label["pole"], label["sign"]),
                    junction.s + offset,
                    side * near,
                    angle,
                )
    walk = max(land.pavement, 1.0)
    for _ in range(rng.poisson(15 * d.people)):
        s = BEGIN + rng.uniform(0.15, 0.75) * (END - BEGIN)
        group = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.1)
        heading = rng.choice([0.0, np.pi]) + rng.normal(0, 0.3)
        pace = float(np.cos(heading)) * rng.uniform(0.8, 1.5)
        for _ in range(group):
            t = edge + land.verge + rng.uniform(0.3, walk)
            plan.put(
                people.person(rng, label["pedestrian"]),
                s + pace * plan.time + rng.normal(0, 0.6),
                side * t,
                heading,
            )
    if rng.random() < 0.25 * d.people:
        for _ in range(rng.integers(1, 7)):  # parked bicycles
            s = rng.uniform(2, 70)
            plan.put(
                people.bicyclist(rng, label["bicyclist"], rider=False),
                s,
                side * (edge + walk * 0.8),
                rng.uniform(-1.6, 1.6),
            )


def vehicles(plan: StreetPlan) -> None:
    """Parked and driving cars, bicyclists, and those who cross."""
    rng, d, label = plan.rng, plan.district, plan.label
    for side in (-1, 1):
        if plan.parking[int(side > 0)]:
            s = BEGIN + rng.uniform(0, 10)
            fill = rng.uniform(0.35, 0.95)
            while s < plan.end - 60:
                model, length = motors.car(rng, label["car"])
                if length < 6 and rng.random() < fill and plan.clear(side, s + length / 2, 4):
                    turn = (np.pi if side != plan.driver_side else 0.0) + rng.normal(0, 0.02)
                    plan.put(
                        model,
                        s + length / 2,
                        side * (plan.edge(side) - 1.05 - rng.uniform(0, 0.2)),
                        turn,
                        0.0,
                    )
                s += length + rng.uniform(0.5, 1.6)
        elif rng.random() < 0.35:  # drives and yards
            for _ in range(rng.integers(1, 5)):
                t = plan.edge(side) + plan.layout.sides[int(side > 0)].width + rng.uniform(2.5, 4)
                if plan.district.setback[1] > 4:
                    plan.put(
                        motors.car(rng, label["car"])[0],
                        rng.uniform(0, 80),
                        side * t,
                        rng.choice([0, 1.57, 3.14, -1.57]),
                    )
    ahead = rng.uniform(9, 70)
    flow = rng.uniform(0.2, 1.4) if plan.name != "wooded" else 0.3
    pace = rng.uniform(6, 11)
    while ahead < 130:
        if rng.random() < 0.5 * flow:
            plan.put(
                motors.car(rng, label["car"])[0],
                ahead + pace * plan.time,
                plan.lane + rng.normal(0, 0.15),
                rng.normal(0, 0.02),
                0.0,
            )
        ahead += rng.uniform(9, 45)
    other = -plan.driver_side
    free = plan.edge(int(other)) - (2.1 if plan.parking[int(other > 0)] else 0.0)
    lane = other * float(np.clip(free * 0.5, 1.3, 2.6))
    oncoming = BEGIN + rng.uniform(0, 30)
    while oncoming < 150 + 12 * 12:
        if rng.random() < 0.55 * flow:
            plan.put(
                motors.car(rng, label["car"])[0],
                oncoming - pace * plan.time,
                lane + rng.normal(0, 0.15),
                np.pi + rng.normal(0, 0.02),
                0.0,
            )
        oncoming += rng.uniform(10, 45)
    for _ in range(rng.poisson(1.5 * d.people + 0.4)):
        edge_side = int(rng.choice([plan.driver_side, other], p=[0.7, 0.3]))
        t = edge_side * (
            plan.edge(edge_side)
            - (2.2 if plan.parking[int(edge_side > 0)] else 0)
            - rng.uniform(0.5, 1.1)
        )
        along = edge_side == plan.driver_side
        step = (4.5 if along else -4.5) * plan.time
        plan.put(
            people.bicyclist(rng, label["bicyclist"]),
            rng.uniform(5, 60) + step,
            t,
            0.0 if along else np.pi,
            0.0,
        )
    for _ in range(rng.poisson(0.6 * d.people)):
        s, t = rng.uniform(9, 60), rng.uniform(-plan.layout.left, plan.layout.right)
        heading = rng.choice([np.pi / 2, -np.pi / 2]) + rng.normal(0, 0.4)
        step = -float(np.sign(heading)) * 1.3 * plan.time
        plan.put(people.person(rng, label["pedestrian"]), s, t + step, heading)
    for junction in plan.layout.junctions:  # cars in side streets and yards
        for side in (-1, 1):
            if junction.side in (0, side) and rng.random() < 0.6:
                for _ in range(rng.integers(1, 3 if junction.half_width < 6 else 9)):
                    t = plan.edge(side) + rng.uniform(4, 28)
                    across = rng.uniform(-1, 1) * (junction.half_width - 1.2)
                    plan.put(
                        motors.car(rng, label["car"])[0],
                        junction.s + across,
                        side * t,
                        rng.choice([1.57, -1.57]),
                        0.0,
                    )
