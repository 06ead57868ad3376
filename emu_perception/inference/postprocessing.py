"""Raw outputs of a network to the maps of `Prediction`, with `kernels`, or NumPy and OpenCV.

A band of rows at a time, so that no tensor with all classes at full size exists: writing one to
memory and reading it back takes longer than computing it. The equations are those of
`emu_perception.uncertainty`, in forms that need few passes. With `m` the largest logit of a pixel,
`q = l - m`, `Z = sum exp(q)` and `S = sum q exp(q)`, the confidence is `1 / Z` and the entropy
`ln Z - S / Z`: no logarithm per class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from emu_perception.inference import kernels
from emu_perception.inference.deployment import FEATURES
from emu_perception.inference.resampling import Upsampled, row_ranges
from emu_perception.inference.threads import for_each
from emu_perception.prediction import DEPTH_MAPS, MIN_VARIANCE, UNLABELLED
from emu_perception.tasks import TASKS, other_tasks

BAND_BYTES = 1 << 20
"""Size of the largest array of a band: it stays in a core's cache."""
WITHOUT_KERNEL = frozenset({"probabilities", "semantic_epistemic", "depth_epistemic"})
"""Maps that only NumPy computes."""
SEMANTIC = frozenset(
    {"labels", "confidence", "semantic_entropy", "semantic_epistemic", "probabilities"}
)


@dataclass(frozen=True)
class MapSettings:
    """How raw outputs become maps.

    Attributes:
        classes: number of classes, C.
        temperature: divides the logits.
        variance_scale: multiplies the predictive variance of depth.
        depth_range: metres; depth outside is invalid.
        without_depth: class ids that have no depth, such as sky.
        focal_ratio: f / f0: metres per unit of the network's depth.
        focal_std: relative standard deviation of an assumed focal length; 0 = the camera is known.
        min_confidence: labels below it become 255 with confidence 0.
        masks_depth: invalid depth becomes NaN; False: it is limited to the range.
    """

    classes: int = 0
    temperature: float = 1.0
    variance_scale: float = 1.0
    depth_range: tuple[float, float] = (1e-3, 80.0)
    without_depth: tuple[int, ...] = ()
    focal_ratio: float = 1.0
    focal_std: float = 0.0
    min_confidence: float = 0.0
    masks_depth: bool = True


def compute_maps(
    raw: Mapping[str, np.ndarray],
    size: tuple[int, int],
    wanted: frozenset[str],
    settings: MapSettings,
) -> dict[str, np.ndarray]:
    """The wanted maps of one image, and its features where they are wanted.

    Args:
        raw: by task, `(1, K, h, w)` or `(M, 1, K, h, w)` float32, as
            `networks.raw_outputs.RawOutputs`.
        size: height and width of the maps.
        wanted: names of `Prediction` fields that these raw outputs can fill, and `FEATURES`.

    Returns:
        By name, `(H, W)`; `probabilities` is `(C, H, W)`, directions are `(H, W, 3)`, `FEATURES` is
        `(E,)`.
    """
    pooled = {n: raw[n].flatten() for n in (FEATURES,) if n in wanted and n in raw}
    wanted = wanted - {FEATURES}
    if not wanted:
        return pooled
    work = _Work(raw, size, wanted, settings)
    for_each(work.band, work.bands)
    return {**work.maps, **pooled}


class _Work:
    """One image's maps while they are computed; bands may be computed in any order."""

    def __init__(
        self,
        raw: Mapping[str, np.ndarray],
        size: tuple[int, int],
        wanted: frozenset[str],
        settings: MapSettings,
    ) -> None:
        self._settings, self._wanted = settings, wanted
        self._masks_classes = bool(
            settings.masks_depth and settings.without_depth and wanted & DEPTH_MAPS
        ) and ("semantic" in raw)
        tasks = {
            "semantic": bool(wanted & SEMANTIC) or self._masks_classes,
            "depth": bool(wanted & DEPTH_MAPS),
            **{name: task.field in wanted for name, task in other_tasks().items()},
        }
        self._full: dict[str, tuple[Upsampled, int]] = {}
        largest = 1
        for task, used in tasks.items():
            if used and task in raw:
                given = _members(raw[task])
                if task == "semantic" and len(given) == 1 and settings.temperature != 1:
                    # Upsampling is linear: the temperature divides as well before it.
                    given = given.copy()
                    given[:, : settings.classes] /= np.float32(settings.temperature)
                flat = given.reshape(-1, *given.shape[-2:])
                self._full[task] = (
                    Upsampled(np.ascontiguousarray(flat, np.float32), size),
                    len(given),
                )
                # Of an ensemble one member is reduced at a time.
                largest = max(largest, given.shape[1])
        self.bands = row_ranges(size[0], min(max(BAND_BYTES // (4 * largest * size[1]), 8), 64))
        self.maps = {name: _empty(name, size, settings.classes) for name in wanted}
        self._compiled = kernels.AVAILABLE and not wanted & WITHOUT_KERNEL
        self._spare: dict[str, np.ndarray] = {}
        """Maps that are not wanted and that others are computed from."""
        if self._compiled:
            needed = {"labels": "semantic", "confidence": "semantic", "depth": "depth"}
            if not settings.min_confidence > 0:
                del needed["confidence"]
            for name, task in needed.items():
                if task in self._full and name not in wanted:
                    self._spare[name] = _empty(name, size, settings.classes)

    def band(self, rows: tuple[int, int]) -> None:
        """Fill the rows from the first up to the last in all maps."""
        first, last = rows
        found: dict[str, np.ndarray] = {}
        for task, (full, members) in self._full.items():
            if members == 1 and self._has_kernel(task, len(full.columns)):
                kernel = self._semantic_kernel if task == "semantic" else self._depth_kernel
                found.update(kernel(full.columns, rows))
            else:
                raw = full.rows(first, last)
                raw = raw.reshape(members, -1, *raw.shape[1:])
                if task == "semantic":
                    found.update(self._semantic(raw))
                elif task == "depth":
                    found.update(self._depth(raw))
                else:
                    found[TASKS[task].field] = _OF_KIND[TASKS[task].kind](raw)
            if task == "depth" and self._settings.masks_depth:
                self._mask_depth(found)
        if self._settings.min_confidence > 0 and "confidence" in found:
            doubtful = found["confidence"] < self._settings.min_confidence
            found["confidence"][doubtful] = 0
            found["labels"][doubtful] = UNLABELLED
        for name in self._wanted:
            whole = self.maps[name]
            part = whole[:, first:last] if name == "probabilities" else whole[first:last]
            if found[name].base is not whole:
                part[...] = found[name]

    def _has_kernel(self, task: str, channels: int) -> bool:
        """Whether a kernel computes the maps of a task; none adds epistemic uncertainty."""
        fits = channels < 3 if task == "depth" else self._settings.classes <= kernels.MAX_CLASSES
        return self._compiled and task in ("semantic", "depth") and fits

    def _semantic_kernel(self, raw: np.ndarray, rows: tuple[int, int]) -> dict[str, np.ndarray]:
        """Rows of the maps of `_semantic`, for logits `(C, h, W)`."""
        maps = {**self.maps, **self._spare}
        names = ("labels", "confidence", "semantic_entropy")
        labels, confidence, entropy = (maps.get(name) for name in names)
        assert labels is not None
        kernels.semantic_rows(raw, self._settings.classes, rows, labels, confidence, entropy)
        return {name: maps[name][slice(*rows)] for name in names if name in maps}

    def _depth_kernel(self, raw: np.ndarray, rows: tuple[int, int]) -> dict[str, np.ndarray]:
        """Rows of the maps of `_depth`, for raw depth `(K, h, W)`."""
        maps, settings = {**self.maps, **self._spare}, self._settings
        kernels.depth_rows(
            raw,
            rows,
            settings.focal_ratio,
            settings.variance_scale * settings.focal_ratio**2,
            settings.focal_std,
            MIN_VARIANCE,
            (0.0, math.inf) if settings.masks_depth else settings.depth_range,
            maps["depth"],
            maps.get("depth_variance"),
        )
        names = ("depth", "depth_variance")
        return {name: maps[name][slice(*rows)] for name in names if name in maps}

    def _semantic(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """`(M, C, R, W)` logits, with split uncertainty one channel more, to maps `(R, W)`."""
        wanted, classes = self._wanted, self._settings.classes
        softmax_needed = bool(
            wanted & (SEMANTIC - {"labels"}) or (self._settings.min_confidence > 0)
        )
        if len(raw) > 1:
            return self._ensemble(raw)
        logits = raw[0, :classes]
        largest = logits.max(0)
        found = {"labels": _first_equal(logits, largest)}
        if not softmax_needed:
            return found
        weights, total, expected = _softmax(logits, largest)
        found["confidence"] = 1 / total
        found["semantic_entropy"] = cv2.log(total) - expected
        if "semantic_epistemic" in wanted:
            predicted = _softplus(raw[0, classes])
            found["semantic_epistemic"] = np.minimum(predicted, found["semantic_entropy"])
        if "probabilities" in wanted:
            found["probabilities"] = weights / total
        return found

    def _ensemble(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """Pool, then calibrate (Rahaman and Thiery, NeurIPS 2021)."""
        mean = np.zeros_like(raw[0])
        entropies = np.zeros_like(raw[0, 0])
        for logits in raw:
            weights, total, expected = _softmax(logits, logits.max(0))
            mean += weights / total
            entropies += cv2.log(total) - expected
        mean /= len(raw)
        entropies /= len(raw)
        probabilities = mean
        if self._settings.temperature != 1:
            pooled = _log(mean) / np.float32(self._settings.temperature)
            weights, total, _ = _softmax(pooled, pooled.max(0))
            probabilities = weights / total
        confidence = probabilities.max(0)
        found = {
            "labels": _first_equal(probabilities, confidence),
            "confidence": confidence,
            "probabilities": probabilities,
            "semantic_entropy": _entropy(probabilities),
        }
        if "semantic_epistemic" in self._wanted:
            # Calibration leaves the members' disagreement as it is.
            mutual = np.maximum(_entropy(mean) - entropies, 0)
            found["semantic_epistemic"] = np.minimum(mutual, found["semantic_entropy"])
        return found

    def _depth(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """`(M, K, R, W)` raw depth to maps `(R, W)` in metres (EMUFormer, Eq. 10)."""
        settings, ratio = self._settings, np.float32(self._settings.focal_ratio)
        means = np.maximum(raw[:, 0], 0)
        epistemic = None
        if len(raw) > 1:
            epistemic = means.var(0)
        elif raw.shape[1] == 3:
            epistemic = _softplus(raw[0, 2])
        depth = means.mean(0) * ratio
        if not settings.masks_depth:
            depth = depth.clip(*np.float32(settings.depth_range))
        found = {"depth": depth}
        if self._wanted & {"depth_variance"}:
            variance = np.zeros_like(depth)
            if raw.shape[1] > 1:
                variance = sum(np.maximum(_softplus(r[1]), MIN_VARIANCE) for r in raw) / len(raw)
            if epistemic is not None:
                variance = variance + epistemic
            variance = variance * np.float32(settings.variance_scale * settings.focal_ratio**2)
            if settings.focal_std > 0:
                variance += np.square(depth * np.float32(settings.focal_std))
            found["depth_variance"] = variance
        if "depth_epistemic" in self._wanted and epistemic is not None:
            scale = settings.variance_scale * settings.focal_ratio**2
            found["depth_epistemic"] = epistemic * np.float32(scale)
        return found

    def _mask_depth(self, found: Mapping[str, np.ndarray]) -> None:
        """NaN in the maps of depth outside the range, and where a class has no depth."""
        nearest, farthest = self._settings.depth_range
        depth, labels = found["depth"], found.get("labels")
        invalid = ~((depth > 0) & (depth >= nearest) & (depth <= farthest))
        if self._masks_classes and labels is not None:
            for index in self._settings.without_depth:
                invalid |= labels == index
        for name in DEPTH_MAPS & found.keys():
            np.copyto(found[name], np.float32(np.nan), where=invalid)


def _members(raw: np.ndarray) -> np.ndarray:
    """`(1, K, h, w)` or `(M, 1, K, h, w)` to `(M, K, h, w)`."""
    return raw.reshape(-1, *raw.shape[-3:])


def _empty(name: str, size: tuple[int, int], classes: int) -> np.ndarray:
    for task in TASKS.values():
        if task.field == name:
            return np.empty(task.label_shape(*size), task.map_type)
    return np.empty((classes, *size) if name == "probabilities" else size, np.float32)


def _first_equal(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """`(C, R, W)` and its maximum to the uint8 index of the first channel that equals it."""
    count = len(values)
    rank = np.arange(count, 0, -1, dtype=np.uint8)[:, None, None]
    equal = np.equal(values, largest).view(np.uint8)
    return count - np.multiply(equal, rank, out=equal).max(0)


def _softmax(logits: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overwrites the logits with q; returns exp(q), Z and S / Z of the module's description."""
    np.subtract(logits, largest, out=logits)
    weights = _exp(logits)
    total = weights.sum(0)
    return weights, total, np.einsum("chw,chw->hw", weights, logits) / total


def _exp(values: np.ndarray) -> np.ndarray:
    """exp of any array, four times as fast as NumPy's."""
    return cv2.exp(values.reshape(-1, values.shape[-1])).reshape(values.shape)


def _log(values: np.ndarray) -> np.ndarray:
    """ln of any array, limited at 1e-30."""
    limited = np.maximum(values, np.float32(1e-30))
    return cv2.log(limited.reshape(-1, values.shape[-1])).reshape(values.shape)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -np.einsum("chw,chw->hw", probabilities, _log(probabilities))


def _softplus(values: np.ndarray) -> np.ndarray:
    """ln(1 + exp(x)), exact where exp(x) is small."""
    power = _exp(-np.abs(values))
    series = power * (1 - power * (0.5 - power / 3))
    return np.maximum(values, 0) + np.where(power < 0.01, series, cv2.log(1 + power))


def _direction(raw: np.ndarray) -> np.ndarray:
    """`(M, 3, R, W)` to the members' mean direction `(R, W, 3)`."""
    unit = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
    mean = unit.mean(0)
    mean /= np.maximum(np.linalg.norm(mean, axis=0, keepdims=True), 1e-12)
    return mean.transpose(1, 2, 0)


def _classes(raw: np.ndarray) -> np.ndarray:
    """`(M, C, R, W)` scores to ids `(R, W)`."""
    scores = raw[0]
    if len(raw) > 1:
        scores = np.zeros_like(raw[0])
        for logits in raw:
            weights, total, _ = _softmax(logits, logits.max(0))
            scores += weights / total
    return _first_equal(scores, scores.max(0))


def _binary(raw: np.ndarray) -> np.ndarray:
    """`(M, 2, R, W)` scores to the members' mean probability of the second class `(R, W)`."""
    return (1 / (1 + _exp(raw[:, 0] - raw[:, 1]))).mean(0)


_OF_KIND = {"direction": _direction, "classes": _classes, "binary": _binary}
