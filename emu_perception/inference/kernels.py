"""Calls the compiled loops of `kernels.c`, where the installation could compile them.

Without a C compiler the package installs all the same, and NumPy and OpenCV compute the maps:
`AVAILABLE` is then False. `EMU_KERNELS=0` in the environment has the same effect.
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec

import numpy as np

VARIABLE = "EMU_KERNELS"
"""Environment variable: `0` turns the compiled loops off."""
MAX_CLASSES = 256
"""The limit of `kernels.c`."""

_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_PARAMETERS = {
    "semantic_rows": [_POINTER, *[_LONG] * 6, *[_POINTER] * 3],
    "depth_rows": [_POINTER, *[_LONG] * 6, *[_FLOAT] * 6, *[_POINTER] * 2],
    "resample_rows": [
        *(_POINTER, _LONG, _POINTER, _POINTER, _LONG, _POINTER, _POINTER, _LONG),
        *[_LONG] * 4,
        *[_POINTER] * 2,
    ],
}


def _load() -> ctypes.CDLL | None:
    """The compiled library; None where there is none."""
    found = find_spec("emu_perception.inference._kernels")
    if found is None or found.origin is None or os.environ.get(VARIABLE) == "0":
        return None
    try:
        library = ctypes.CDLL(found.origin)
        for name, parameters in _PARAMETERS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = parameters, None
    except (OSError, AttributeError):  # of another machine, or of another version
        return None
    return library


_LIBRARY = _load()
AVAILABLE = _LIBRARY is not None


def semantic_rows(
    logits: np.ndarray,
    classes: int,
    rows: tuple[int, int],
    labels: np.ndarray,
    confidence: np.ndarray | None,
    entropy: np.ndarray | None,
) -> None:
    """Fill rows of the maps of a softmax over classes.

    Args:
        logits: `(K, h, W)` float32, the first C channels divided by the temperature; contiguous, as
            are all maps.
        classes: C, at most `MAX_CLASSES`.
        rows: the first row, and the one after the last.
        labels: `(H, W)` uint8, the first class of the largest logit.
        confidence: `(H, W)` float32, or None.
        entropy: `(H, W)` float32 in nats, or None.
    """
    assert _LIBRARY is not None
    _, before, width = logits.shape
    _LIBRARY.semantic_rows(
        _address(logits),
        classes,
        before,
        width,
        len(labels),
        *rows,
        _address(labels),
        _address(confidence),
        _address(entropy),
    )


def depth_rows(
    raw: np.ndarray,
    rows: tuple[int, int],
    ratio: float,
    variance_ratio: float,
    relative_std: float,
    minimum: float,
    limits: tuple[float, float],
    depth: np.ndarray,
    variance: np.ndarray | None,
) -> None:
    """Fill rows of depth and its predictive variance, of one network.

    Args:
        raw: `(1, h, W)` or `(2, h, W)` float32: depth, and variance before its activation.
        rows: the first row, and the one after the last.
        ratio: metres per unit of the network's depth.
        variance_ratio: square metres per unit of its variance.
        relative_std: relative standard deviation of an assumed focal length.
        minimum: of the variance, in the network's units.
        limits: smallest and largest depth, in metres.
        depth: `(H, W)` float32, metres.
        variance: `(H, W)` float32, square metres, or None.
    """
    assert _LIBRARY is not None
    channels, before, width = raw.shape
    _LIBRARY.depth_rows(
        _address(raw),
        channels,
        before,
        width,
        len(depth),
        *rows,
        ratio,
        variance_ratio,
        relative_std,
        minimum,
        *limits,
        _address(depth),
        _address(variance),
    )


Filter = tuple[np.ndarray, np.ndarray]
"""First input pixel of each output pixel of an axis, `(N,)` int32, and its weights, `(N, T)`
float32."""


def resample_rows(
    image: np.ndarray, down: Filter, across: Filter, rows: tuple[int, int], planes: np.ndarray
) -> None:
    """Fill rows of an image at another size.

    Args:
        image: `(H, W, 3)` uint8, contiguous.
        down: filter of the rows.
        across: filter of the columns.
        rows: the first row, and the one after the last.
        planes: `(3, h, w)` float32.
    """
    assert _LIBRARY is not None
    line = np.empty(3 * image.shape[1], np.float32)
    _LIBRARY.resample_rows(
        _address(image),
        image.shape[1],
        _address(down[0]),
        _address(down[1]),
        down[1].shape[1],
        _address(across[0]),
        _address(across[1]),
        across[1].shape[1],
        *planes.shape[1:],
        *rows,
        _address(line),
        _address(planes),
    )


def _address(values: np.ndarray | None) -> int | None:
    return None if values is None else values.ctypes.data
