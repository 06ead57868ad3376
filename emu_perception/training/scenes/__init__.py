"""Endless random street and room scenes with exact labels, depth, normals and camera."""

from emu_perception.training.scenes.frame import SceneFrame
from emu_perception.training.scenes.generate import (
    SceneStream,
    StreetDrive,
    render_batch,
    render_scene,
)

__all__ = ["SceneFrame", "SceneStream", "StreetDrive", "render_batch", "render_scene"]
