"""How a network is run: one interface, an engine per runtime, chosen by name or by `auto`."""

import sys

from emu_perception.inference.engines.base import (
    ENGINES,
    Engine,
    choose_device,
    choose_precision,
    make_engine,
)

# Where its telemetry package can be imported, OpenVINO reports every import and conversion over the
# network, from a forked process each; a robot does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = ["ENGINES", "Engine", "choose_device", "choose_precision", "make_engine"]
