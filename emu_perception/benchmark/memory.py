"""The memory that a case takes, in a process of its own: `python -m ….benchmark.memory '{…}'`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from emu_perception.benchmark.cases import Case, example_image
from emu_perception.benchmark.measure import peak_resident_bytes, resident_bytes
from emu_perception.inference.predictor import Predictor

FRAMES = 3


def memory(case: Case, threads: int) -> dict[str, int]:
    """Bytes that a predictor takes after a few frames, measured in a new process.

    Returns:
        `resident` and `peak_resident` of the process; on a GPU also `gpu_peak`, what torch
        allocated at most, `gpu_reserved`, and `gpu_context`, what else the process holds there.

    Raises:
        RuntimeError: the process failed; the message has its last words.
    """
    # Seen from here, where the new process's context is not yet there.
    free = torch.cuda.mem_get_info(case.device)[0] if case.device.startswith("cuda") else 0
    text = json.dumps({"case": asdict(case), "threads": threads, "free": free})
    command = [sys.executable, "-m", "emu_perception.benchmark.memory", text]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {case.name} failed: {done.stderr[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str]) -> None:
    """Run the case and print its memory as JSON."""
    asked = json.loads(arguments[0])
    torch.set_num_threads(asked["threads"])
    case = Case(**{**asked["case"], "size": tuple(asked["case"]["size"])})
    on_gpu = case.device.startswith("cuda")
    predictor = Predictor(case.load(), case.device, case.precision, case.engine)
    image = example_image(case.size)
    for _ in range(FRAMES):
        predictor.predict(image)
    found = {"resident": resident_bytes(), "peak_resident": peak_resident_bytes()}
    if on_gpu:
        taken = asked["free"] - torch.cuda.mem_get_info(case.device)[0]
        reserved = torch.cuda.memory_reserved(case.device)
        found["gpu_peak"] = torch.cuda.max_memory_allocated(case.device)
        found["gpu_reserved"] = reserved
        found["gpu_context"] = max(0, taken - reserved)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
