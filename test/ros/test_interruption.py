"""SIGINT and SIGTERM end the node within two seconds in every state, quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from emu_perception.processes import ros_arguments

from .conftest import wait_for

END_SECONDS = 2.0
SECONDS = (0.0, 0.3, 0.7, 1.5, 2.5, 4.0, 6.0, 9.0)
"""From the program's first lines to the signal: imports, loading, spinning, by the machine."""


def environment() -> dict[str, str]:
    """Without what an engine kept: loading takes long."""
    return os.environ | {"EMU_CACHE_DIR": tempfile.mkdtemp(prefix="emu_test_interruption_")}


def handles_signals(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program is past the start of the interpreter, which knows no SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.moments("seconds", SECONDS)
def test_a_signal_ends_the_node(
    number: signal.Signals, seconds: float, model_path: Path, tmp_path: Path
) -> None:
    arguments = ros_arguments({"model": str(model_path), "device": "cpu"})
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "emu_perception.ros.run_node", *arguments],
            env=environment(),
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: handles_signals(process), "the program to begin")
        time.sleep(seconds)
        assert process.poll() is None, log.read_text()
        process.send_signal(number)
        begin = time.monotonic()
        status = process.wait(60)
        took = time.monotonic() - begin
    finally:
        process.kill()
    text = log.read_text()
    assert status in (0, 130), text
    assert "Traceback" not in text and "failed" not in text and "rror" not in text
    assert took < END_SECONDS, text
