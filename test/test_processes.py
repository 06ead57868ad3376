"""Child processes: their events arrive, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from emu_perception import processes
from emu_perception.processes import (
    Child,
    Children,
    claim_domain,
    ros_environment,
    tail,
)

STUBBORN = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print('{"ready": true}', flush=True)
time.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of the module `made_up`, which children can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "made_up.py"


def wait_for_event(child: Child) -> dict[str, object]:
    return child.events.get(timeout=20)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead already.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_json_lines_are_events_and_the_rest_is_log(module: Path, tmp_path: Path) -> None:
    module.write_text(
        "import sys\nprint('{\"n\": 1}')\nprint('plain text')\nprint('oh no', file=sys.stderr)\n"
    )
    with Children(dict(os.environ), tmp_path / "logs") as children:
        child = children.start("made", "made_up", [], events=True)
        assert wait_for_event(child) == {"n": 1}
        child.process.wait(20)
    assert not list(child.new_events())
    log = tail(tmp_path / "logs" / "made.log")
    assert "plain text" in log
    assert "oh no" in log


def test_failures_show_the_end_of_the_log(module: Path, tmp_path: Path) -> None:
    module.write_text("import sys\nfor i in range(100): print('line', i)\nsys.exit('it broke')\n")
    with Children(dict(os.environ), tmp_path) as children:
        child = children.start("made", "made_up", [])
        assert child.process.wait(20) == 1
        message = str(child.failure("The made process ended."))
    assert message.startswith("The made process ended.")
    assert "it broke" in message
    assert "line 99" in message
    assert "line 50" not in message


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_even_stubborn_children_end_with_the_block(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    module.write_text(STUBBORN)
    with pytest.raises(KeyboardInterrupt), Children(dict(os.environ), tmp_path) as children:  # noqa: PT012
        child = children.start("made", "made_up", [], events=True)
        wait_for_event(child)
        raise KeyboardInterrupt
    assert child.process.returncode == -signal.SIGKILL
    assert not alive(child.process.pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl and /proc are Linux's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_their_parent(
    module: Path, tmp_path: Path, number: signal.Signals
) -> None:
    module.write_text("import time\nprint('{}', flush=True)\ntime.sleep(60)\n")
    parent = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from emu_perception.processes import Children, terminated_as_exit\n"
        "with terminated_as_exit(), Children(dict(os.environ), Path(sys.argv[1])) as children:\n"
        "    child = children.start('made', 'made_up', [], events=True)\n"
        "    child.events.get()\n"
        "    print(child.process.pid, flush=True)\n"
        "    child.process.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        assert alive(pid)
        running.send_signal(number)
    expected = -signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM
    assert running.returncode == expected
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_domains_that_are_claimed_at_once_differ() -> None:
    with ExitStack() as stack:
        domains = [stack.enter_context(claim_domain()) for _ in range(40)]
        assert len(set(domains)) == 40
    with claim_domain() as again:
        assert 1 <= again <= 101


def test_every_run_has_a_domain_of_its_own_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "0")
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    environments = [ros_environment() for _ in range(20)]
    domains = {int(e["ROS_DOMAIN_ID"]) for e in environments}
    assert len(domains) > 5
    assert all(1 <= d <= 101 for d in domains)
    assert environments[0]["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert "ROS_LOCALHOST_ONLY" not in environments[0]
    assert Path(environments[0]["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
