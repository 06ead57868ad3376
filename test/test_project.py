"""Habits of the project: names that the package offers, skips, and files that git ignores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import emu_perception

ROOT = Path(__file__).resolve().parents[1]


def test_public_names_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, emu_perception as e\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules), 'imported too early'\n"
        "assert e.Intrinsics.__module__ == 'emu_perception.camera'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in emu_perception.__all__:
        assert getattr(emu_perception, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = emu_perception.predict  # type: ignore[attr-defined]


def test_a_virtual_environment_is_ignored_also_as_a_link(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    (tmp_path / ".venv").symlink_to(tmp_path)
    status = ["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"]
    listed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["??", ".gitignore"]


def test_unexpected_skips_fail_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'test')!r})\nfrom options import *\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nallowed_skips = no CUDA device\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_gpu(): pytest.skip('no CUDA device here')\n"
        "def test_engine(): pytest.skip('openvino is not installed')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--fail-on-skips"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)

    accepted, refused = run("-k", "gpu"), run()
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert refused.returncode == 1
    assert refused.stdout.count("unexpected skip") == 1
    assert "test_it.py:3: Skipped: openvino is not installed" in refused.stdout
