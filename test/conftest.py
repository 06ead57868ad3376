"""What all tests share: what engines compile is kept for this run only, and not in the home."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# At import, before any engine or child process asks.
os.environ["EMU_CACHE_DIR"] = tempfile.mkdtemp(prefix="emu_test_cache_")
atexit.register(shutil.rmtree, os.environ["EMU_CACHE_DIR"], ignore_errors=True)
