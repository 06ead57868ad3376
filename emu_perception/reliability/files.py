"""Model files, configurations, recordings and cache entries, sound and spoilt."""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from numpy.random import Generator as Rng

from emu_perception.inference.engines.cache import (
    IMAGE_SIZES,
    VARIABLE,
    EngineCache,
    recall_image_size,
    remember_image_size,
)
from emu_perception.inference.model_file import HEADER_KEY, LoadedModel, load_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set
from emu_perception.recordings import BagError, BagReader
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.recording import ImageDecoder
from emu_perception.reliability import recordings
from emu_perception.reliability.deployed import DeployedCases
from emu_perception.reliability.judge import MAX_LINES, Case
from emu_perception.reliability.messages import pick
from emu_perception.resources import find_resource
from emu_perception.training.config_file import load_config

SLOW = 10.0
"""CPU seconds of what builds a network or reads a whole recording."""
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 10**9, 10**30, -(10**30), 1e308, float("nan"), ""),
    *("x", "x" * 100_000, "../" * 50, "\x1b[31m\x00", [], [[]], {}, {"a": 1}, [1] * 2000),
    *("mit_b0", "deep_ensemble", "__import__('os').system('true')", "/dev/zero"),
)


def tiny_model(path: Path) -> LoadedModel:
    """Write a small model and return it."""
    from emu_perception.inference.model_file import save_model

    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone="mit_b0",
        tasks=("semantic", "depth"),
        arguments={"width": 8},
        label_set=load_label_set("camvid"),
        input_size=(64, 64),
    )
    network: Any = spec.build()
    network.initialise_depth_mean(10.0)
    save_model(path, network, spec)
    return load_model(path)


def spoil_value(rng: Rng, value: Any, depth: int = 0) -> Any:
    """A nested value with one part replaced, removed, added or nested a thousand times."""
    if isinstance(value, dict) and value and rng.random() < 0.9 - 0.1 * depth:
        key = pick(rng, list(value))
        found = dict(value)
        match int(rng.integers(6)):
            case 0:
                del found[key]
            case 1:
                found[str(pick(rng, ("unknown", "backbone", "classes", "x" * 5000)))] = value[key]
            case _:
                found[key] = spoil_value(rng, value[key], depth + 1)
        return found
    if isinstance(value, list) and value and rng.random() < 0.5:
        return [*value[:-1], spoil_value(rng, value[-1], depth + 1)]
    if rng.random() < 0.05:
        nested: Any = []
        for _ in range(500):
            nested = [nested]
        return nested
    return pick(rng, _VALUES)


def spoil_bytes(rng: Rng, data: bytes, first: int = 1 << 30) -> bytes:
    """Bytes with some changed, cut off, repeated or set to zero, mostly among the `first` ones."""
    changed = bytearray(data)
    span = min(len(changed), first if rng.random() < 0.8 else len(changed))
    match int(rng.integers(5)):
        case 0:
            for place in rng.integers(0, span, int(rng.integers(1, 6))):
                changed[place] = rng.integers(256)
        case 1:
            del changed[int(rng.integers(0, len(changed))) :]
        case 2:
            place = int(rng.integers(0, span))
            number = int(pick(rng, (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)))
            changed[place : place + 8] = struct.pack("<Q", number)
        case 3:
            begin = int(rng.integers(0, len(changed)))
            changed[begin : begin + 4096] = bytes(len(changed[begin : begin + 4096]))
        case 4:
            begin, end = sorted(int(each) for each in rng.integers(0, span, 2))
            changed[begin:begin] = changed[begin : min(end, begin + 5000)]
    return bytes(changed)


class FileCases:
    """Cases of files, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tiny_model(folder / "tiny.safetensors")
        self._model_bytes = self.model.path.read_bytes()
        (length,) = struct.unpack_from("<Q", self._model_bytes)
        self._header: dict[str, Any] = json.loads(self._model_bytes[8 : 8 + length])
        self._tensors = self._model_bytes[8 + length :]
        self._configurations = sorted(find_resource("config", "train").rglob("*.yaml"))
        self._labels = sorted(find_resource("config", "labels").glob("*.yaml"))
        self._corpus = recordings.corpus()
        self._sound = [
            next(recordings.write_recording(folder / name, storage, pack).glob(f"*.{suffix}"))
            for name, storage, suffix, pack in (
                ("mcap", "mcap", "mcap", False),
                ("mcap_packed", "mcap", "mcap", True),
                ("sqlite", "sqlite3", "db3", False),
                ("sqlite_packed", "sqlite3", "db3", True),
            )
        ]

    def model_case(self, rng: Rng, index: int) -> Case:
        """A .safetensors file whose header or bytes are spoilt."""
        path = self.folder / "m.safetensors"
        if rng.random() < 0.6:
            described = json.loads(self._header["__metadata__"][HEADER_KEY])
            for _ in range(int(rng.integers(1, 3))):
                described = spoil_value(rng, described)
            metadata = {**self._header["__metadata__"], HEADER_KEY: json.dumps(described)}
            header = json.dumps({**self._header, "__metadata__": metadata}).encode()
            data = struct.pack("<Q", len(header)) + header + self._tensors
        else:
            data = spoil_bytes(rng, self._model_bytes, 8 + len(json.dumps(self._header)))
        path.write_bytes(data)
        return Case(lambda: load_model(path), seconds=SLOW)

    @functools.cached_property
    def deployed(self) -> DeployedCases:
        """Cases of .onnx files; made when first needed."""
        return DeployedCases(self.folder)

    def onnx_case(self, rng: Rng, index: int) -> Case:
        """An .onnx file whose description, bytes or graph are spoilt."""
        return self.deployed.case(rng, index, spoil_value, spoil_bytes)

    def configuration_case(self, rng: Rng, index: int) -> Case:
        """A training configuration or a label set."""
        labels = rng.random() < 0.4
        source = pick(rng, self._labels if labels else self._configurations)
        path = self.folder / "c.yaml"
        if rng.random() < 0.7:
            values = yaml.safe_load(source.read_text(encoding="utf-8"))
            for _ in range(int(rng.integers(1, 3))):
                values = spoil_value(rng, values)
            data = json.dumps(values).encode()  # JSON is YAML
        else:
            data = spoil_bytes(rng, source.read_bytes())
        path.write_bytes(data)
        read: Callable[[], Any] = (
            (lambda: load_label_set(str(path))) if labels else (lambda: load_config(path))
        )
        return Case(read, seconds=2.0, lines=MAX_LINES)

    def recording_case(self, rng: Rng, index: int) -> Case:
        """A recording; the first ones are those of `recordings.corpus`."""
        if index < len(self._corpus):
            name = list(self._corpus)[index]
            path = self._corpus[name](self.folder / name)
        else:
            source = pick(rng, self._sound)
            data = source.read_bytes()
            while rng.random() < 0.7:
                data = spoil_bytes(rng, data) if data else data
            path = self.folder / f"r{source.suffix}"
            path.write_bytes(data)

        def run() -> list[np.ndarray]:
            problems = Problems()
            with BagReader(path) as bag:
                images = [each.image for each in ImageDecoder(bag, None, problems).images()]
            for kind, found in problems.values().items():
                for example in found["examples"]:
                    if len(example) > 400 or "\n" in example:
                        raise RuntimeError(f"{kind}: {example[:600]}")
            return images

        def check(images: list[np.ndarray]) -> str | None:
            wrong = [each.shape for each in images if each.ndim != 3 or each.dtype != np.uint8]
            return f"images of {wrong}" if wrong else None

        return Case(run, check, (BagError,), SLOW)

    def cache_case(self, rng: Rng, index: int) -> Case:
        """A cache entry, or the file of remembered sizes, that was damaged on the disk."""
        folder = self.folder / "cache"
        os.environ[VARIABLE] = str(folder)
        sizes = rng.random() < 0.4
        content = rng.bytes(int(rng.integers(1, 20_000)))
        cache = EngineCache(self.model, runtime="fuzz", number=0)
        cache.write("network", lambda: content)
        remember_image_size(self.model.path, (48, 64))
        path = folder / IMAGE_SIZES if sizes else next(folder.glob("*.blob"))
        if sizes and rng.random() < 0.5:
            values = {str(self.model.path.resolve()): pick(rng, (*_VALUES, [16384, 16384]))}
            data = json.dumps(values).encode() if rng.random() < 0.9 else b"[" * 200_000
        else:
            data = spoil_bytes(rng, path.read_bytes())
        same = data == path.read_bytes()
        path.write_bytes(data)

        def check(found: SimpleNamespace) -> str | None:
            if found.entry not in (None, content):
                return "a damaged entry was believed"
            if found.size is not None and not (min(found.size) > 0 and max(found.size) < 1 << 20):
                return f"the size {found.size} was believed"
            return None if not same or found.entry == content else "a sound entry was refused"

        return Case(
            lambda: SimpleNamespace(
                entry=cache.read("network"), size=recall_image_size(self.model.path)
            ),
            check,
            errors=(),
        )
