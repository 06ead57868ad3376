"""From a seed to frames: single scenes, endless streams, and a drive along one street."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from emu_perception.camera import Intrinsics
from emu_perception.scenes import vehicles
from emu_perception.scenes.frame import SceneFrame
from emu_perception.scenes.odd import odd_object
from emu_perception.scenes.primitives import Rows, place
from emu_perception.scenes.rendering import render
from emu_perception.scenes.room import RoomBuilder
from emu_perception.scenes.scene import (
    Camera,
    Hood,
    camera_pose,
)
from emu_perception.scenes.sensor import Sensor
from emu_perception.scenes.street import StreetBuilder

KINDS = ("street", "room")


def _intrinsics(
    rng: np.random.Generator, size: tuple[int, int], low: float, high: float
) -> Intrinsics:
    height, width = size
    focal = width * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    shift = np.clip(rng.normal(0, 0.012, 2), -0.03, 0.03)
    return Intrinsics(
        focal,
        focal * float(rng.uniform(0.995, 1.005)),
        (width - 1) / 2 + float(shift[0]) * width,
        (height - 1) / 2 + float(shift[1]) * height,
        width,
        height,
    )


def _hood(rng: np.random.Generator, chance: float) -> Hood | None:
    if rng.random() > chance:
        return None
    dark = rng.random() < 0.6
    color = rng.uniform(0.005, 0.03, 3) if dark else rng.uniform(0.02, 0.4, 3)
    return Hood(
        float(rng.uniform(0.03, 0.16)),
        float(rng.normal(0, 0.015)),
        float(rng.uniform(0.0, 0.08)),
        (float(color[0]), float(color[1]), float(color[2])),
    )


def _street_camera(
    rng: np.random.Generator, builder: StreetBuilder, size: tuple[int, int]
) -> Camera:
    intrinsics = _intrinsics(rng, size, 0.5, 1.2)
    direction = rng.choice(["forward", "turned", "side", "back"], p=[0.66, 0.14, 0.15, 0.05])
    yaw = {
        "forward": rng.normal(0, 4),
        "turned": rng.choice([-1, 1]) * rng.uniform(10, 50),
        "side": rng.choice([-1, 1]) * rng.uniform(55, 110),
        "back": 180 + rng.normal(0, 6),
    }[str(direction)]
    pitch = np.clip(rng.normal(-0.5, 2.6), -6, 6)
    roll = np.clip(rng.normal(0, 1.1), -3, 3)
    lane = builder.lane + np.clip(rng.normal(0, 0.3), -0.6, 0.6)
    if rng.random() < 0.05:  # from the pavement, as a small robot sees it
        lane = builder.driver_side * (builder.edge(int(builder.driver_side)) + 1.0)
    x, y, heading = builder.layout.world(0.0, float(lane))
    height = float(np.clip(rng.normal(1.4, 0.2), 1.0, 2.0)) + builder.layout.surface(
        0.0, float(lane)
    )
    pose = camera_pose(
        (x, y, height), heading + np.radians(yaw), np.radians(pitch), np.radians(roll)
    )
    return Camera(intrinsics, pose, Sensor.random(rng), _hood(rng, 0.22))


def _room_camera(rng: np.random.Generator, builder: RoomBuilder, size: tuple[int, int]) -> Camera:
    position, yaw = builder.viewpoint()
    pitch, roll = np.clip(rng.normal(-9, 7), -28, 8), np.clip(rng.normal(0, 1.5), -4, 4)
    pose = camera_pose(position, yaw, np.radians(pitch), np.radians(roll))
    sensor = Sensor.random(rng)
    return Camera(
        _intrinsics(rng, size, 0.7, 1.1),
        pose,
        replace(sensor, motion=0.0, brightness=sensor.brightness + 0.1),
    )


def _odd_rows(rng: np.random.Generator, camera: Camera, kind: str) -> list[Rows]:
    """One to three out-of-distribution objects on the ground in front of the camera."""
    forward = camera.pose[:2, 2] / max(float(np.hypot(*camera.pose[:2, 2])), 1e-6)
    right = np.array([forward[1], -forward[0]])
    floor = 0.0 if kind == "room" else camera.pose[2, 3] - 1.4
    near, far, scale = (1.0, 2.6, 0.4) if kind == "room" else (4.5, 16.0, 1.0)
    rows = []
    for index in range(rng.integers(1, 4)):
        ahead = rng.uniform(near, far)
        at = camera.pose[:2, 3] + ahead * forward + rng.uniform(-0.3, 0.3) * ahead * right
        model = odd_object(rng, scale)
        rows.append(
            place(model, (at[0], at[1], floor), rng.uniform(0, 2 * np.pi), instance=900000 + index)
        )
    return rows


def _close_vehicles(rng: np.random.Generator, camera: Camera, label: int, ground: float) -> Rows:
    """One to four vehicles right before the camera: ahead, in the next lane, cut off, turned."""
    forward = camera.pose[:2, 2] / max(float(np.hypot(*camera.pose[:2, 2])), 1e-6)
    right = np.array([forward[1], -forward[0]])
    # Half of the image's width per metre of distance.
    spread = 0.5 * camera.intrinsics.width / camera.intrinsics.fx
    rows, taken = [], list[tuple[float, float]]()
    for index in range(rng.integers(1, 5)):
        model, length = vehicles.car(rng, label)
        turn = float(
            rng.choice(
                [rng.normal(0, 0.08), np.pi + rng.normal(0, 0.08), rng.uniform(-np.pi, np.pi)]
            )
        )
        ahead = 3.2 + length / 2 + float(rng.exponential(4.0))
        aside = (
            float(rng.uniform(-1.1, 1.1)) * spread * ahead if index else float(rng.normal(0, 0.5))
        )
        if any(np.hypot(ahead - a, aside - b) < 0.6 * length + 2.4 for a, b in taken):
            continue
        taken.append((ahead, aside))
        at = camera.pose[:2, 3] + ahead * forward + aside * right
        yaw = float(np.arctan2(-forward[0], forward[1])) + turn
        rows.append(place(model, (at[0], at[1], ground), yaw, instance=800000 + index))
    return np.concatenate(rows)


def render_scene(
    seed: int,
    size: tuple[int, int] = (256, 512),
    kind: str = "street",
    *,
    odd_objects: bool = False,
    close_vehicles: bool = False,
    device: torch.device | str = "cpu",
) -> SceneFrame:
    """A random scene, the same for the same seed and size `(H, W)`.

    Args:
        seed: any non-negative integer.
        size: height and width, pixels.
        kind: `"street"` (label set camvid) or `"room"` (nyuv2_13).
        odd_objects: put things into the scene that belong to no class, for tests of uncertainty;
            never for training.
        close_vehicles: put one to four more vehicles before the camera of a street, 3 m away and
            more, at all angles, some cut off by the image's edge.
        device: where to compute. Frames are NumPy arrays all the same.

    Raises:
        ValueError: unknown kind, or a size below 16 pixels.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of scene '{kind}': choose one of {', '.join(KINDS)}")
    if min(size) < 16:
        raise ValueError(
            f"scenes need at least 16 x 16 pixels, got {size[0]} x {size[1]} (height x width)"
        )
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    if kind == "room":
        room = RoomBuilder(rng)
        scene = room.build()
        camera = _room_camera(rng, room, size)
    else:
        street = StreetBuilder(rng)
        scene = street.build()
        camera = _street_camera(rng, street, size)
        if close_vehicles:
            near = np.random.default_rng((seed, 8))
            ground = street.layout.surface(0.0, street.lane)
            extra = _close_vehicles(near, camera, street.label["car"], ground)
            scene = replace(scene, rows=np.concatenate([scene.rows, extra]))
    if odd_objects:
        odd = _odd_rows(np.random.default_rng((seed, 9)), camera, kind)
        scene = replace(scene, rows=np.concatenate([scene.rows, *odd]))
    return render(scene, camera, seed, device)


def render_batch(
    seeds: Iterable[int],
    size: tuple[int, int] = (256, 512),
    kind: str = "street",
    *,
    odd_objects: bool = False,
    device: torch.device | str = "cpu",
) -> list[SceneFrame]:
    """One frame per seed; see `render_scene`."""
    return [render_scene(s, size, kind, odd_objects=odd_objects, device=device) for s in seeds]


@dataclass(frozen=True)
class SceneStream:
    """Endless scenes with seeds `first`, `first + step`, …

    For several workers give each its own `first` and all the same `step`, and one torch thread.
    """

    size: tuple[int, int] = (256, 512)
    kind: str = "street"
    first: int = 0
    step: int = 1
    device: torch.device | str = "cpu"

    def __iter__(self) -> Iterator[SceneFrame]:
        seed = self.first
        while True:
            yield render_scene(seed, self.size, self.kind, device=self.device)
            seed += self.step


@dataclass(frozen=True)
class StreetDrive:
    """A video of one street: `frames` images at `rate` Hz from a car that drives along it.

    The camera is fixed to the car; other traffic moves. Iterating renders the frames.
    """

    seed: int = 0
    size: tuple[int, int] = (480, 640)
    frames: int = 100
    rate: float = 10.0
    device: torch.device | str = "cpu"
    poses: tuple[np.ndarray, ...] = field(init=False, compare=False)
    """4x4 camera-to-world matrices, one per frame; the world is x right, y forward, z up (m)."""
    intrinsics: Intrinsics = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self.frames < 1 or self.rate <= 0:
            raise ValueError(
                f"a drive needs frames and a rate, got {self.frames} frames at {self.rate} Hz"
            )
        rng = self._rng(1)
        layout_owner = self._builder(0.0)
        speed = rng.uniform(8, 12)
        pitch, roll = np.radians(rng.normal(-0.5, 1.0)), np.radians(rng.normal(0, 0.5))
        sway, period, phase = rng.uniform(0.1, 0.35), rng.uniform(5, 9), rng.uniform(0, 2 * np.pi)
        height = rng.uniform(1.25, 1.6)
        poses = []
        for stamp in self.stamps:
            s = speed * stamp
            t = layout_owner.lane + sway * np.sin(2 * np.pi * stamp / period + phase)
            drift = np.arctan(
                sway * 2 * np.pi / period * np.cos(2 * np.pi * stamp / period + phase) / speed
            )
            x, y, heading = layout_owner.layout.world(s, t)
            climb = np.arctan(2 * layout_owner.layout.profile * y)
            bounce = 0.012 * np.sin(7.1 * stamp + phase)
            z = layout_owner.layout.height(s, t) + height + bounce
            poses.append(
                camera_pose((x, y, z), heading + drift, pitch + climb + 0.3 * bounce, roll)
            )
        object.__setattr__(self, "poses", tuple(poses))
        object.__setattr__(
            self, "intrinsics", Intrinsics.from_field_of_view(self.size[1], self.size[0], 62.0)
        )

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, 2, stream))

    def _builder(self, time: float) -> StreetBuilder:
        return StreetBuilder(self._rng(0), time, drive=True)

    @property
    def stamps(self) -> tuple[float, ...]:
        """Seconds since the first frame."""
        return tuple(i / self.rate for i in range(self.frames))

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[SceneFrame]:
        sensor = replace(Sensor.random(self._rng(3)), motion=0.6, jpeg=0, blur=0.55)
        for index, (stamp, pose) in enumerate(zip(self.stamps, self.poses, strict=True)):
            scene = self._builder(stamp).build()
            yield render(
                scene,
                Camera(self.intrinsics, pose, sensor),
                self.seed * 100003 + index,
                self.device,
            )
