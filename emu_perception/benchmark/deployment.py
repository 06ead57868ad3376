"""Memory and start of a deployment file, in a process of its own that never imports PyTorch.

`python -m emu_perception.benchmark.deployment FILE HEIGHT WIDTH FRAMES THREADS` is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FRAMES = 10
VGA = (480, 640)


@dataclass(frozen=True)
class Deployment:
    """Figures of a deployment file."""

    model: str
    image_size: tuple[int, int]
    """Height and width."""
    resident_bytes: int
    """Resident memory after some frames with all maps."""
    start_seconds: float
    """From the start of the process to the first prediction; the cache has the network."""
    imports_torch: bool


def measure_deployment(model: Path, size: tuple[int, int], threads: int) -> Deployment:
    """Start a process twice, the first time to fill the cache, and measure the second.

    Args:
        model: `.onnx` file.
        size: height and width of the image.
        threads: CPU threads.

    Raises:
        RuntimeError: the process failed; the message has its last lines.
    """
    arguments = [str(model), *map(str, size), str(FRAMES), str(threads)]
    command = [sys.executable, "-m", "emu_perception.benchmark.deployment", *arguments]
    for _ in range(2):
        begin = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"measuring {model.name} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Deployment(
        model.name, size, found["resident"], found["first"] - begin, found["imports_torch"]
    )


def deployments_to_check(
    threads: int, progress: Callable[[str], None] = lambda what: None
) -> list[Deployment]:
    """Measure the default model and MiT-B0 at 640 x 480.

    Raises:
        RuntimeError: a process failed.
        ExportError: MiT-B0 could not be exported.
    """
    from emu_perception.benchmark.cases import Case
    from emu_perception.inference.export import export
    from emu_perception.inference.model_file import LoadedModel
    from emu_perception.inference.model_names import resolve_model_path

    with tempfile.TemporaryDirectory() as folder:
        random = Path(folder) / "mit_b0.onnx"
        progress("exporting mit_b0")
        loaded = Case("mit_b0", VGA).load()
        assert isinstance(loaded, LoadedModel)
        export(loaded, random)
        found = []
        for path in (resolve_model_path("").with_suffix(".onnx"), random):
            progress(f"memory and start of {path.name}")
            found.append(measure_deployment(path, VGA, threads))
    return found


def main(model: str, height: str, width: str, frames: str, threads: str) -> None:
    """Predict some images and print the time of the first answer and the memory as JSON."""
    from emu_perception.inference.threads import VARIABLE

    os.environ[VARIABLE] = threads

    from emu_perception.benchmark.cases import example_image
    from emu_perception.benchmark.measure import resident_bytes
    from emu_perception.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(model, device="cpu")
    image = example_image((int(height), int(width)))
    predictor.predict(image)
    first = time.monotonic()  # the same clock in all processes of a machine
    for _ in range(int(frames) - 1):
        predictor.predict(image)
    found = {"first": first, "resident": resident_bytes(), "imports_torch": "torch" in sys.modules}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
