"""Fuzzing guided by coverage: `python -m emu_perception.reliability.coverage_guided TARGET`.

Atheris changes bytes so that new lines of the package run. It needs the extra `fuzz`. What follows
the target goes to libFuzzer: files to repeat, `-runs=N`, `-max_total_time=SECONDS`.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emu_perception.reliability.judge import MAX_LINES, Case, Findings

Make = Callable[[bytes, Path], Case]
"""The case of an input; the path is a file for it."""


def _compressed(data: bytes, path: Path) -> Case:
    from emu_perception.messages.images import rgb_from_compressed
    from emu_perception.reliability.messages import FUZZED_PIXELS

    message = SimpleNamespace(data=data, format="")
    return Case(lambda: rgb_from_compressed(message, FUZZED_PIXELS))


def _file(read: Callable[[Path], Any], **limits: Any) -> Make:
    def make(data: bytes, path: Path) -> Case:
        path.write_bytes(data)
        return Case(lambda: read(path), **limits)

    return make


def _read_model(path: Path) -> Any:
    from emu_perception.inference.model_file import load_model

    return load_model(path)


def _read_recording(path: Path) -> int:
    from emu_perception.recordings import BagReader
    from emu_perception.recordings.problems import Problems
    from emu_perception.recordings.recording import ImageDecoder

    with BagReader(path) as bag:
        return sum(1 for _ in ImageDecoder(bag, None, Problems()).images())


def _read_configuration(path: Path) -> Any:
    from emu_perception.training.config_file import load_config

    return load_config(path)


def _read_labels(path: Path) -> Any:
    from emu_perception.labels import load_label_set

    return load_label_set(str(path))


TARGETS: dict[str, tuple[str, Make]] = {
    "compressed": (".jpg", _compressed),
    "model": (".safetensors", _file(_read_model, seconds=10.0)),
    "onnx": (".onnx", _file(_read_model, seconds=10.0)),
    "mcap": (".mcap", _file(_read_recording, seconds=10.0)),
    "sqlite": (".db3", _file(_read_recording, seconds=10.0)),
    "configuration": (".yaml", _file(_read_configuration, seconds=2.0, lines=MAX_LINES)),
    "labels": (".yaml", _file(_read_labels, seconds=2.0, lines=MAX_LINES)),
}
"""Suffix of the file and maker of the case, by target."""


def write_sound_inputs(target: str, folder: Path) -> None:
    """Write inputs that are accepted, which the fuzzer starts from; none of model files."""
    import cv2
    import numpy as np

    from emu_perception.reliability.recordings import write_recording
    from emu_perception.resources import find_resource

    if target == "compressed":
        image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
        for suffix in ("jpg", "png", "webp", "tiff"):
            cv2.imwrite(str(folder / f"image.{suffix}"), image)
    elif target in ("mcap", "sqlite"):
        storage = {"mcap": "mcap", "sqlite": "sqlite3"}[target]
        for pack in (False, True):
            written = write_recording(folder / "recording", storage, pack)
            found = next(written.glob(f"*{TARGETS[target][0]}"))
            found.rename(folder / f"{pack}{found.suffix}")
            shutil.rmtree(written)
    elif target in ("configuration", "labels"):
        kind = {"configuration": "train", "labels": "labels"}[target]
        for path in find_resource("config", kind).rglob("[!_]*.yaml"):
            if "\nextends:" not in path.read_text(encoding="utf-8"):
                shutil.copy(path, folder / f"{path.parent.name}_{path.name}")


def judge(target: str, data: bytes, path: Path) -> None:
    """Feed one input to the package.

    Raises:
        AssertionError: the package neither refuses it with one line nor answers in time.
    """
    findings = Findings()
    findings.judge(target, 0, TARGETS[target][1](data, path))
    for failure in findings.failures:
        raise AssertionError(f"{failure.kind}: {failure.text}")


def main(arguments: Sequence[str]) -> None:
    """Fuzz one target until libFuzzer ends; never returns."""
    if not arguments or arguments[0] not in TARGETS:
        raise SystemExit(f"usage: TARGET [libFuzzer's options]; targets: {', '.join(TARGETS)}")
    target = arguments[0]
    try:
        import atheris
    except ImportError:
        raise SystemExit("coverage-guided fuzzing needs pip install emu_perception[fuzz]") from None
    with tempfile.TemporaryDirectory(prefix="emu_fuzz_") as folder:
        path = Path(folder) / f"input{TARGETS[target][0]}"
        with atheris.instrument_imports(include=["emu_perception", "mcap"]):
            case = TARGETS[target][1](b"", path)
            with contextlib.suppress(*case.errors):
                case.run()  # imports what the target needs
        sound = Path(folder) / "sound"
        sound.mkdir()
        write_sound_inputs(target, sound)
        given = any(not each.startswith("-") for each in arguments[1:])
        options = [sys.argv[0], *([] if given else [str(sound)]), *arguments[1:]]
        atheris.Setup(options, lambda data: judge(target, data, path))
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
