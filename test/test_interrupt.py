"""Native code that takes long: Ctrl-C leaves it, and the process ends without a crash."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emu_perception.interrupt import INTERRUPTED, interruptible

PATIENCE = 60.0
"""Seconds; without the thread, the call below takes hours."""
NATIVE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**11 % 2**31)"
"""Releases the interpreter's lock and returns to Python for no signal."""


def run_and_interrupt(code: str) -> subprocess.CompletedProcess[str]:
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    if child.stdout.readline() != "begun\n":
        pytest.fail(child.communicate()[1])
    child.send_signal(signal.SIGINT)
    try:
        out, err = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def test_ctrl_c_leaves_native_code() -> None:
    done = run_and_interrupt(
        "import hashlib, atexit\n"
        "from emu_perception.interrupt import interruptible\n"
        "atexit.register(print, 'cleaned up')\n"
        "def native():\n"
        "    print('begun')\n"
        f"    {NATIVE}\n"
        "try: interruptible(native)\n"
        "except KeyboardInterrupt: print('left')\n"
    )
    assert done.stdout == "left\ncleaned up\n"
    assert done.returncode == INTERRUPTED, done.stderr


def test_ctrl_c_while_a_model_compiles_ends_emu_in_a_line(
    tmp_path: Path, write_model: object
) -> None:
    pytest.importorskip("openvino")
    import cv2
    import numpy as np

    model = write_model()  # type: ignore[operator]
    picture = tmp_path / "a.png"
    assert cv2.imwrite(str(picture), np.zeros((64, 64, 3), np.uint8))
    done = run_and_interrupt(
        "import hashlib, sys\n"
        "from emu_perception.inference.engines.converted import ConvertedSource\n"
        "def compile_anew(*arguments):\n"
        "    print('begun')\n"
        f"    {NATIVE}\n"
        "ConvertedSource._compile_anew = compile_anew\n"
        f"sys.argv = ['emu', 'predict', {str(picture)!r}, '--model', {str(model)!r},\n"
        f"            '--device', 'cpu', '--out', {str(tmp_path / 'out')!r}]\n"
        "from emu_perception.__main__ import main\n"
        "main()\n"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, INTERRUPTED)


def test_ctrl_c_while_modules_are_imported_shows_no_traceback() -> None:
    done = run_and_interrupt(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer':\n"
        "            print('begun')\n"
        "            time.sleep(600)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from emu_perception.__main__ import main\n"
        "main()\n"
    )
    assert done.returncode == INTERRUPTED and done.stderr == ""


def test_results_and_errors_come_through() -> None:
    assert interruptible(lambda: threading.current_thread().name) == "interruptible"
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)
    names: list[str] = []
    thread = threading.Thread(
        target=lambda: names.append(interruptible(lambda: threading.current_thread().name)),
        name="worker",
    )
    thread.start()
    thread.join()
    assert names == ["worker"]
