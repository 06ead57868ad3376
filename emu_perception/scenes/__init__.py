"""Endless random street and room scenes with exact labels, depth, normals and camera."""

from emu_perception.scenes.frame import SceneFrame
from emu_perception.scenes.generate import (
    SceneStream,
    StreetDrive,
    render_batch,
    render_scene,
)

RENDERER_VERSION = 1
"""Part of the cache key of rendered scenes. Increase it with every change that alters pixels,
labels or depth, so that no cache mixes two versions."""

__all__ = [
    "RENDERER_VERSION",
    "SceneFrame",
    "SceneStream",
    "StreetDrive",
    "render_batch",
    "render_scene",
]
