"""Container, service and CI files are valid and name what exists. They are built by hand only."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
LAUNCH_ARGUMENT = re.compile(r"\b(\w+):=")


def launch_arguments() -> set[str]:
    """Names that the node's launch file declares."""
    text = (ROOT / "launch" / "emu_perception.launch.py").read_text("utf-8")
    return set(re.findall(r'^    "(\w+)": ', text, re.MULTILINE)) | {"params_file"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile with their arguments, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ")
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def test_dockerfile() -> None:
    found = instructions((DOCKER / "Dockerfile").read_text("utf-8"))
    names = [name for name, _ in found]
    assert found[0] == ("FROM", "ros:jazzy-ros-base")
    assert set(names) <= {"FROM", "RUN", "COPY", "ENV", "VOLUME", "ENTRYPOINT", "USER"}
    for name, rest in found:
        if name == "COPY":
            source = rest.split()[0]
            assert (ROOT / source).exists(), source
        if name == "ENTRYPOINT":
            assert rest == '["/entrypoint.sh"]'
        if name == "RUN":
            checked = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr
    scripts = set(re.findall(r"/opt/venv/bin/(emu_\w+)", dict_of(found)["RUN"][-2]))
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    assert scripts and all(f"{script} = " in declared for script in scripts)


def dict_of(found: list[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, rest in found:
        values.setdefault(name, []).append(rest)
    return values


def test_entrypoint_and_documented_arguments() -> None:
    script = DOCKER / "entrypoint.sh"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert "ros2 launch emu_perception emu_perception.launch.py" in script.read_text("utf-8")
    for path in DOCKER.iterdir():
        given = set(LAUNCH_ARGUMENT.findall(path.read_text("utf-8")))
        assert given <= launch_arguments(), path.name


def test_compose() -> None:
    values: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    (service,) = values["services"].values()
    build = service["build"]
    context = (DOCKER / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).is_file()
    # Either one shared memory for all, or room for a segment of each process.
    assert service.get("ipc") == "host" or "shm_size" in service
    volumes = {volume.partition(":")[0] for volume in service["volumes"]}
    assert volumes <= values["volumes"].keys()


def test_systemd_unit() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DOCKER / "emu_perception.service", encoding="utf-8")
    assert {"Unit", "Service", "Install"} == set(parser.sections())
    service = parser["Service"]
    # SIGINT and ten seconds: ros2 launch ends the node, which ends within two.
    assert (service["KillSignal"], service["TimeoutStopSec"]) == ("SIGINT", "10")
    command = service["ExecStart"].removeprefix("/bin/bash -c ").strip("'")
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    assert "ros2 launch emu_perception emu_perception.launch.py" in command


def test_ci_job() -> None:
    path = ROOT / ".github" / "workflows" / "jazzy.yaml"
    values: dict[Any, Any] = yaml.safe_load(path.read_text("utf-8"))
    (job,) = values["jobs"].values()
    assert job["container"]["image"] == "ros:jazzy"
    assert "--shm-size" in job["container"]["options"]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    for step in steps:
        assert subprocess.run(["bash", "-n", "-c", step]).returncode == 0
    (named,) = re.findall(r"src/emu_perception/(test/\S+)", steps[-1])
    compile((ROOT / named).read_text("utf-8"), named, "exec")
    assert "rosdep install" in steps[0] and "colcon build" in steps[1]


@pytest.mark.parametrize("argument", ["image_topic", "camera_info_topic", "model", "rviz"])
def test_the_launch_arguments_are_found(argument: str) -> None:
    assert argument in launch_arguments()
