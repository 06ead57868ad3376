"""Hostile messages over DDS: a small run of `emu fuzz --dds` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_small_run_over_dds_finds_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "fuzz.json"
    command = [sys.executable, "-m", "emu_perception.cli", "fuzz", "--messages=0", "--files=0"]
    done = subprocess.run(
        [*command, "--dds=60", "--seed=2", f"--json={figures}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cases = json.loads(figures.read_text())["cases"]
    assert cases.keys() == {"node_image", "node_compressed", "node_camera_info"}
    # Twenty each, and a valid message before and after them.
    assert all(counts["judged"] == 22 for counts in cases.values())
    assert all(counts["answered"] > 2 for counts in cases.values())
    assert cases["node_image"]["refused"] and cases["node_compressed"]["refused"]
