"""Random furnished rooms, for NYUv2's thirteen classes."""

from __future__ import annotations

import numpy as np

from emu_perception.labels import load_label_set
from emu_perception.scenes import (
    furniture,
    household,
    storage,
    walls,
)
from emu_perception.scenes.lighting import Light
from emu_perception.scenes.primitives import (
    Material,
    Rows,
    Shape,
    place,
    primitives,
)
from emu_perception.scenes.scene import Scene

_KINDS = {
    "bedroom": {
        "bed": 0.3,
        "cabinet": 0.3,
        "bookcase": 0.1,
        "chair": 0.1,
        "table": 0.12,
        "sofa": 0.03,
        "tv": 0.05,
    },
    "living": {
        "sofa": 0.35,
        "tv": 0.15,
        "bookcase": 0.2,
        "cabinet": 0.15,
        "table": 0.1,
        "chair": 0.05,
    },
    "office": {"table": 0.3, "chair": 0.2, "bookcase": 0.25, "cabinet": 0.2, "tv": 0.05},
    "dining": {"cabinet": 0.45, "bookcase": 0.15, "chair": 0.2, "table": 0.15, "tv": 0.05},
}


class RoomBuilder:
    """Furnishes one room; the world's origin is the middle of the floor."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        names = load_label_set("nyuv2_13")
        self.label = {name: names.index(name) for name in names.names}
        self.width, self.depth = rng.uniform(2.8, 6.5, 2)
        self.height = float(rng.uniform(2.3, 3.1))
        self.kind = str(rng.choice(list(_KINDS), p=[0.32, 0.32, 0.2, 0.16]))
        self.rows: list[Rows] = []
        self.instances = 0
        self.taken: list[tuple[float, float, float, float]] = []
        """Floor rectangles x0, x1, y0, y1 with furniture on them."""

    def put(self, model: Rows, position: tuple[float, float, float], yaw: float) -> None:
        self.instances += 1
        self.rows.append(place(model, position, yaw, instance=self.instances))

    def _shell(self) -> None:
        rng, w, d, h = self.rng, self.width / 2, self.depth / 2, self.height
        wall = np.array([0.62, 0.60, 0.54]) * rng.uniform(0.45, 1.25) * rng.uniform(0.85, 1.12, 3)
        timber = np.array([0.30, 0.19, 0.11]) * rng.uniform(0.4, 1.6)
        carpet = np.full(3, rng.uniform(0.08, 0.5)) * rng.uniform(0.85, 1.15, 3)
        boards = rng.random() < 0.5
        thick = 0.1
        floor = primitives(
            Shape.BOX,
            (0, 0, -thick),
            (w, d, thick),
            label=self.label["floor"],
            color=timber if boards else carpet,
            material=Material.WOOD if boards else Material.PATTERN,
            color2=carpet * 0.85,
            param=(0.12 if boards else 12, 0, 0, 0),
        )
        ceiling = primitives(
            Shape.BOX,
            (0, 0, h + thick),
            (w, d, thick),
            label=self.label["ceiling"],
            color=(0.72, 0.71, 0.68),
        )
        self.put(floor, (0, 0, 0), 0.0)
        self.put(ceiling, (0, 0, 0), 0.0)
        accent = wall * rng.uniform(0.5, 1.3, 3) if rng.random() < 0.3 else wall
        papered = rng.random() < 0.15
        for i, (x, y, hx, hy) in enumerate(
            ((-w, 0, 0, d), (w, 0, 0, d), (0, -d, w, 0), (0, d, w, 0))
        ):
            color = np.clip(accent if i == 0 else wall, 0.02, 0.85)
            outside = (np.sign(x) * thick, np.sign(y) * thick)
            half = (hx + thick, hy + thick, h / 2)
            self.put(
                primitives(
                    Shape.BOX,
                    (0, 0, h / 2),
                    half,
                    label=self.label["wall"],
                    color=color,
                    color2=color * 0.85,
                    material=Material.PATTERN if papered else Material.PLAIN,
                    param=(3, 0, 0, 0),
                ),
                (x + outside[0], y + outside[1], 0),
                0.0,
            )
            skirting = primitives(
                Shape.BOX,
                (0, 0, 0.05),
                (max(hx, 0.012), max(hy, 0.012), 0.05),
                label=self.label["wall"],
                color=(0.6, 0.6, 0.57),
            )
            self.put(skirting, (x, y, 0), 0.0)

    def _along_walls(self, day: float) -> None:
        rng, label = self.rng, self.label
        w, d = self.width / 2, self.depth / 2
        models = {
            "bed": furniture.bed,
            "sofa": furniture.sofa,
            "chair": furniture.chair,
            "table": furniture.table,
            "cabinet": storage.cabinet,
            "bookcase": storage.bookcase,
            "tv": storage.television,
        }
        shares = _KINDS[self.kind]
        sides = [
            (-w, 0.0, 0.0, self.depth),
            (w, 0.0, np.pi, self.depth),
            (0.0, -d, np.pi / 2, self.width),
            (0.0, d, -np.pi / 2, self.width),
        ]
        for x, y, yaw, length in sides:
            at = -length / 2 + rng.uniform(0, 0.6)
            inward, along = (
                np.array([np.cos(yaw), np.sin(yaw)]),
                np.array([-np.sin(yaw), np.cos(yaw)]),
            )
            while at < length / 2 - 0.4:
                name = str(
                    rng.choice(
                        list(shares), p=np.array(list(shares.values())) / sum(shares.values())
                    )
                )
                rows, width, depth = models[name](rng, label)
                middle = at + width / 2
                centre = np.array([x, y]) + along * middle
                corners = np.stack(
                    [
                        centre + along * s * width / 2 + inward * e
                        for s in (-1, 1)
                        for e in (0.0, depth)
                    ]
                )
                low, high = corners.min(0), corners.max(0)
                if at + width < length / 2 and self._free(low, high) and rng.random() < 0.8:
                    self.put(rows, (*(centre + inward * 0.03), 0.0), yaw)
                    self.taken.append((low[0], high[0], low[1], high[1]))
                    if (
                        rng.random() < 0.5
                        and depth < 1.2
                        and name not in ("bookcase", "cabinet", "tv")
                    ):
                        self._hang(x, y, along, middle, yaw, day)
                    at += width + rng.uniform(0.05, 0.7)
                else:
                    if rng.random() < 0.5 and abs(at) < length / 2 - 1.2:
                        self._hang(x, y, along, at, yaw, day)
                    at += rng.uniform(0.4, 1.2)
            if rng.random() < 0.3:
                at = rng.uniform(-0.5, 0.5) * (length - 1.2)
                self.put(walls.door(rng, label), (x + along[0] * at, y + along[1] * at, 0.0), yaw)

    def _hang(
        self, x: float, y: float, along: np.ndarray, at: float, yaw: float, day: float
    ) -> None:
        rng = self.rng
        model = (
            walls.window(rng, self.label, day)
            if rng.random() < 0.35
            else walls.picture(rng, self.label)
        )
        self.put(model, (x + along[0] * at, y + along[1] * at, rng.uniform(1.4, 1.75)), yaw)

    def _free(self, low: np.ndarray, high: np.ndarray) -> bool:
        return all(
            high[0] < a or low[0] > b or high[1] < c or low[1] > e for a, b, c, e in self.taken
        )

    def _middle(self) -> None:
        rng, label = self.rng, self.label
        if rng.random() < 0.5:
            size = rng.uniform(0.6, 1.4, 2)
            rug = primitives(
                Shape.BOX,
                (0, 0, 0.006),
                (size[0], size[1], 0.006),
                material=Material.PATTERN,
                label=label["floor"],
                color=rng.uniform(0.05, 0.6, 3),
                color2=rng.uniform(0.05, 0.6, 3),
                seed=rng.uniform(0, 50),
                param=(3, 0, 0, 0),
            )
            self.put(rug, (rng.normal(0, 0.3), rng.normal(0, 0.3), 0), rng.normal(0, 0.2))
        low, high = np.array([-0.9, -0.9]), np.array([0.9, 0.9])
        if self._free(low, high) and min(self.width, self.depth) > 3.4 and rng.random() < 0.7:
            self.taken.append((-0.9, 0.9, -0.9, 0.9))
            yaw = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1)
            if self.kind == "dining" or rng.random() < 0.3:
                for rows, (px, py, _), turn in furniture.dining_set(rng, label):
                    c, s = np.cos(yaw), np.sin(yaw)
                    self.put(rows, (c * px - s * py, s * px + c * py, 0.0), yaw + turn)
            else:
                rows, _, depth = furniture.table(rng, label, low=True)
                self.put(rows, (-depth / 2 * np.cos(yaw), -depth / 2 * np.sin(yaw), 0.0), yaw)
        for rows in household.things(
            rng,
            label,
            (-self.width * 0.4, self.width * 0.4),
            (-self.depth * 0.4, self.depth * 0.4),
            0.0,
            int(rng.integers(0, 4)),
        ):
            self.put(rows, (0, 0, 0), 0.0)

    def build(self) -> Scene:
        """The whole room."""
        rng = self.rng
        self._shell()
        day = float(rng.uniform(1.5, 6)) if rng.random() < 0.75 else 0.03
        self._along_walls(day)
        self._middle()
        warm = np.array([1.0, 0.88, 0.70]) if rng.random() < 0.6 else np.array([0.95, 1.0, 1.0])
        level = rng.uniform(0.4, 1.0)
        turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.3)
        direction = (
            float(np.cos(tilt) * np.cos(turn)),
            float(np.cos(tilt) * np.sin(turn)),
            float(np.sin(tilt)),
        )
        lamp = warm * rng.uniform(0.3, 1.2)
        ambient = warm * level
        glow = (float(ambient[0]), float(ambient[1]), float(ambient[2]))
        light = Light(
            sun_direction=direction,
            sun=(float(lamp[0]), float(lamp[1]), float(lamp[2])),
            zenith=glow,
            horizon=glow,
            ambient=glow,
            cloud=glow,
            clouds=0.0,
            cloud_seed=0.0,
            haze=0.0,
            bounce=float(rng.uniform(0.35, 0.7)),
        )
        return Scene(np.concatenate(self.rows), light)

    def viewpoint(self) -> tuple[tuple[float, float, float], float]:
        """A free place to stand near a wall and the yaw (clockwise from +y) towards the room."""
        rng = self.rng
        best, most = (0.0, 0.0), -np.inf
        for _ in range(24):
            x, y = (
                rng.uniform(-0.5, 0.5) * (self.width - 0.6),
                rng.uniform(-0.5, 0.5) * (self.depth - 0.6),
            )
            gaps = [max(a - x, x - b, c - y, y - e) for a, b, c, e in self.taken]
            score = min([0.5, *gaps]) + 0.25 * max(abs(x) / self.width, abs(y) / self.depth)
            if score > most:
                best, most = (float(x), float(y)), score
        target = rng.uniform(-0.25, 0.25, 2) * (self.width, self.depth)
        yaw = float(np.arctan2(target[0] - best[0], target[1] - best[1]) + rng.normal(0, 0.25))
        return (best[0], best[1], float(rng.uniform(0.9, 1.7))), yaw
