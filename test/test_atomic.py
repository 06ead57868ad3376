"""Files that are whole or not there."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest

import emu_perception
from emu_perception.atomic import replacing, write_text
from emu_perception.images import write_png


def write_half(path: Path) -> None:
    with replacing(path) as partial:
        partial.write_text("ne")
        raise RuntimeError


def test_what_is_cut_short_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    write_text(path, "old ü")
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_text(encoding="utf-8") == "old ü"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    write_text(link, "text")
    assert link.is_symlink() and (tmp_path / "file").read_text() == "text"
    write_text(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()


def test_every_file_is_written_through_one_function() -> None:
    """What writes to a path without `replacing` leaves half a file on a full disk."""
    writes = re.compile(
        r"\.write_text\(|\.write_bytes\(|\.savefig\(|imwrite\(|\.save\(|\.open\(\"[wx]|save_file\("
    )
    root = Path(emu_perception.__file__).parent
    found = {
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        if path.parent.name != "reliability"  # writes what the others read
        for line in path.read_text(encoding="utf-8").splitlines()
        if writes.search(line)
    }
    whole = (
        "partial",
        "_file.write_text",
        "page.write_text",
        "packed",
        "text, format",
        "_replacing",
    )
    allowed = {
        line
        for line in found
        if any(word in line for word in whole) or line.endswith(tuple(STREAMS))
    }
    assert found - allowed == set()


STREAMS = (
    'self._log_file = log.open("wb")',  # the log of a running process
    'Path("/proc/self/clear_refs").write_text("5", encoding="ascii")',
    'lock = stack.enter_context(name.open("w"))',  # an empty file that is locked
)


def test_a_full_disk_is_an_error_and_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.zeros((20, 20), np.uint8))
    before = path.read_bytes()

    def full(file: Path, data: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(bytes(data)[:30])
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_png(path, np.ones((20, 20), np.uint8))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]
