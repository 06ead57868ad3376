"""Full disks, two processes with one cold cache: nothing is lost, nothing half-written is used."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from emu_perception.atomic import write_text
from emu_perception.images import write_png
from emu_perception.inference.engines import cache
from emu_perception.inference.engines.cache import EngineCache
from emu_perception.inference.model_file import LoadedModel, load_model, save_model

LIMIT = 100_000


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LoadedModel]) -> LoadedModel:
    return make_model()


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """Once called, files end at `LIMIT` bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(
    model: LoadedModel,
    full_disk: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    kept, network, text, picture = (
        EngineCache(model),
        tmp_path / "model.safetensors",
        tmp_path / "a.json",
        tmp_path / "a.png",
    )
    save_model(network, model.network, model.spec)
    write_text(text, "before")
    write_png(picture, np.zeros((8, 8), np.uint8))
    kept.write("network", lambda: b"before")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    full_disk()
    kept.write("network", lambda: noise.bytes(2 * LIMIT))
    assert kept.read("network") == b"before"
    for write in (
        lambda: save_model(network, model.network, model.spec),
        lambda: write_text(text, "x" * 2 * LIMIT),
        lambda: write_png(picture, noise.integers(0, 256, (600, 600), np.uint8)),
    ):
        with pytest.raises(OSError) as refused:  # noqa: PT011
            write()
        assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert load_model(network).spec.architecture == model.spec.architecture


def test_two_processes_share_a_cold_cache(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    path = write_model()
    code = (
        "import sys, numpy as np\n"
        "from emu_perception.inference.predictor import Predictor\n"
        f"predictor = Predictor.from_pretrained({str(path)!r}, 'cpu', engine='openvino')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "found = predictor.predict(np.full((64, 64, 3), 90, np.uint8))\n"
        "print(float(np.nansum(found.depth)), int(found.labels.sum()))\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=250)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert answers[0] == answers[1] != ""
    entries = list((tmp_path / "cache").iterdir())
    assert entries and all(entry.suffix == cache.SUFFIX for entry in entries)
    kept = EngineCache(load_model(path))
    for entry in entries:
        kept._key, name = entry.stem.split("-", 1)
        assert kept.read(name) is not None  # whole
