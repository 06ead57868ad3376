"""Files that are whole or not there."""

from pathlib import Path

import pytest

from emu_perception.atomic import replacing, write_text


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
