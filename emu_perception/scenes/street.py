"""Random streets: what stands where, for CamVid's eleven classes."""

from __future__ import annotations

import numpy as np

from emu_perception.scenes.frontage import buildings, horizon
from emu_perception.scenes.lighting import Light, daylight
from emu_perception.scenes.plan import StreetPlan
from emu_perception.scenes.populace import pavement, vehicles
from emu_perception.scenes.scene import Scene, Street


class StreetBuilder(StreetPlan):
    """Puts models along one street."""

    def build(self, light: Light | None = None) -> Scene:
        """The whole street."""
        light = light or daylight(self.rng)
        surface = self.paving()
        for side in (-1, 1):
            buildings(self, side)
        horizon(self)
        for side in (-1, 1):
            pavement(self, side)
        vehicles(self)
        label = self.label
        street = Street(
            self.layout, surface, (label["road"], label["pavement"], label["tree"]), label["sky"]
        )
        return Scene(np.concatenate(self.rows), light, street)
