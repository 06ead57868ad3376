"""Imports point down, in no circle; only `ros/` needs rclpy; the package itself loads quickly."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "emu_perception"
LAYERS = (
    "cli",
    "reliability",
    "ros",
    "recordings",
    "experiments",
    "benchmark",
    "training",
    "inference",
    "evaluation",
    "data",
    "scenes",
    "networks",
    "messages",
    "visualization",
)
"""Packages, the highest first. Single modules such as `camera.py` lie below all of them."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ROOTS = ("emu_perception", "emu_perception.__main__")
"""The package itself and its entry point, which may import from every layer."""
MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Everything that a file imports, in functions too; own names as modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    return found


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def layer(module: str) -> int:
    """The position from the bottom; 0 for single modules."""
    parts = module.split(".")
    package = parts[1] if len(parts) > 1 else ""
    return len(LAYERS) - LAYERS.index(package) if package in LAYERS else 0


def test_every_package_has_a_layer() -> None:
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert packages == set(LAYERS)


def test_the_documentation_lists_the_layers() -> None:
    page = (PACKAGE.parent / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)) == LAYERS


def test_imports_point_down() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others & MODULES.keys())
        if name not in ROOTS and layer(other) > layer(name)
    ]
    assert not upward


def test_no_imports_go_in_a_circle() -> None:
    """A package's `__init__` gathers names of its own modules and is left out."""
    gathering = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {
        name: {other for other in others & MODULES.keys() if other not in gathering}
        for name, others in IMPORTS.items()
        if name not in gathering
    }
    circle: list[str] = []
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
    assert not circle, " -> ".join(circle)


def test_only_ros_imports_rclpy_and_scenes_import_only_camera_and_labels() -> None:
    for name, others in IMPORTS.items():
        if not name.startswith("emu_perception.ros."):
            assert not [o for o in others if o.partition(".")[0] == "rclpy"], name
        if name.startswith("emu_perception.scenes"):
            own = {o for o in others if o.startswith("emu_perception.")}
            own = {o for o in own if not o.startswith("emu_perception.scenes")}
            assert own <= {"emu_perception.camera", "emu_perception.labels"}, name


@pytest.mark.parametrize("module", ["emu_perception", "emu_perception.inference"])
def test_importing_loads_neither_torch_nor_ros(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'rclpy'}} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_no_file_is_long() -> None:
    roots = (PACKAGE, PACKAGE.parent / "test", PACKAGE.parent / "examples")
    files = [path for root in roots for path in root.rglob("*.py")]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {str(path): count for path, count in lines.items() if count > 400}
