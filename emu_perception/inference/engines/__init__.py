"""How a network is run: one interface, an engine per runtime, chosen by name or by `auto`."""

from emu_perception.inference.engines.base import (
    ENGINES,
    Engine,
    choose_device,
    choose_precision,
    make_engine,
)

__all__ = ["ENGINES", "Engine", "choose_device", "choose_precision", "make_engine"]
