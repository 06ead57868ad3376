"""Objects of a scene, and its camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emu_perception.camera import Intrinsics
from emu_perception.scenes.caster import View
from emu_perception.scenes.ground import Layout
from emu_perception.scenes.lighting import Light
from emu_perception.scenes.paving import Paving
from emu_perception.scenes.primitives import Rows
from emu_perception.scenes.sensor import Sensor


@dataclass(frozen=True)
class Street:
    """Ground of a scene and the label ids of its regions (road, pavement, grass) and the sky."""

    layout: Layout
    paving: Paving
    labels: tuple[int, int, int]
    sky: int


@dataclass(frozen=True)
class Hood:
    """The ego vehicle at the image's lower edge: heights as fractions of the image's."""

    height: float
    slope: float
    bulge: float
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything there is to see."""

    rows: Rows
    light: Light
    street: Street | None = None


@dataclass(frozen=True)
class Camera:
    """The camera; `pose` is the 4x4 camera-to-world matrix."""

    intrinsics: Intrinsics
    pose: np.ndarray
    sensor: Sensor
    hood: Hood | None = None
    gain: float | None = None


def camera_pose(
    position: tuple[float, float, float], yaw: float, pitch: float, roll: float
) -> np.ndarray:
    """4x4 camera-to-world from radians: yaw clockwise from +y, pitch up, roll clockwise."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    forward = np.array([sy * cp, cy * cp, sp])
    right = np.array([cy, -sy, 0.0])
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = cr * right + sr * down
    pose[:3, 1] = cr * down - sr * right
    pose[:3, 2] = forward
    pose[:3, 3] = position
    return pose


def view_of(camera: Camera, device: torch.device) -> View:
    """The rays of a camera."""
    pose = torch.tensor(camera.pose, dtype=torch.float32, device=device)
    k = camera.intrinsics
    return View(pose[:3, 3], pose[:3, :3], k.fx, k.fy, k.cx, k.cy, k.width, k.height)
