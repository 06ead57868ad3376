"""Semantic class, metric depth and the uncertainty of both, from one camera image."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu_perception.camera import Intrinsics
    from emu_perception.inference.model_file import load_model
    from emu_perception.inference.predictor import Predictor
    from emu_perception.prediction import Prediction

    __version__: str

__all__ = ["Intrinsics", "Prediction", "Predictor", "load_model"]

_MODULES = {
    "Intrinsics": "camera",
    "Prediction": "prediction",
    "Predictor": "inference.predictor",
    "load_model": "inference.model_file",
}
"""Module of each public name. It is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name == "__version__":  # package.xml defines it; the installed metadata holds it
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
