"""What pip, colcon and rosdep are told about the package agrees with what the package is."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools  # noqa: F401  # provides distutils from Python 3.12 on

from distutils.core import Distribution, run_setup  # isort: skip
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emu_perception

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("config", "launch", "models")


@pytest.fixture(scope="module")
def distribution() -> Distribution:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return run_setup("setup.py", stop_after="config")


@pytest.fixture(scope="module")
def manifest():
    parser = pytest.importorskip("catkin_pkg.package", reason="colcon is not installed")
    return parser.parse_package(ROOT / "package.xml")  # validates e-mail, names and versions


def shipped_files() -> set[str]:
    files = (p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file())
    return {str(p.relative_to(ROOT)) for p in files if p.suffix != ".pyc"}


def requirements(distribution: Distribution) -> list[Requirement]:
    found = [Requirement(r) for r in distribution.install_requires]
    for extra, group in distribution.extras_require.items():
        marker = extra.partition(":")[2]  # setuptools moves it there from the requirement
        found += [Requirement(f"{r} ; {marker}" if marker else r) for r in group]
    return [each for each in found if each.name != "emu_perception"]  # extras that contain others


def imported_modules() -> dict[str, str]:
    """Top-level modules that the package imports from elsewhere, each with one file that does."""
    modules: dict[str, str] = {}
    for path in (ROOT / "emu_perception").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            modules.update({name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names})
    own = {"emu_perception", *sys.stdlib_module_names}
    return {name: path for name, path in modules.items() if name not in own}


def test_every_shipped_file_keeps_its_place_below_the_share_folder(distribution):
    installed = {
        source: f"{target}/{Path(source).name}"
        for target, sources in distribution.data_files
        for source in sources
    }
    assert {f: installed.get(f) for f in shipped_files()} == {
        f: f"share/emu_perception/{f}" for f in shipped_files()
    }
    assert installed["package.xml"] == "share/emu_perception/package.xml"
    marker = "share/ament_index/resource_index/packages/emu_perception"
    assert installed["resource/emu_perception"] == marker
    assert "config/labels/camvid.yaml" in installed


def test_every_subpackage_is_installed(distribution):
    folders = {p.parent for p in (ROOT / "emu_perception").rglob("*.py")}
    names = {".".join(f.relative_to(ROOT).parts) for f in folders}
    assert set(distribution.packages) == names


def test_version_licence_and_maintainer_are_the_same_everywhere(distribution, manifest):
    assert distribution.get_version() == manifest.version == emu_perception.__version__
    assert distribution.get_license() == " AND ".join(str(each) for each in manifest.licenses)
    assert all((ROOT / each.file).is_file() for each in manifest.licenses)
    assert manifest.description.strip() == distribution.get_description()
    maintainer = manifest.maintainers[0]
    assert (maintainer.name, maintainer.email) == (
        "emu_perception maintainers",
        "maintainers@emu-perception.org",
    )
    assert f"{maintainer.name} <{maintainer.email}>" in distribution.get_maintainer_email()
    # colcon takes a package without a valid address for plain Python, without saying so.
    assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", maintainer.email)
    assert manifest.get_build_type() == "ament_python"
    assert manifest.package_format == 3


def test_entry_points_can_be_called(distribution):
    scripts = dict(re.split(r"\s*=\s*", s) for s in distribution.entry_points["console_scripts"])
    assert set(scripts) == {"emu", "emu_node", "emu_evaluator", "emu_bag_player"}
    for target in scripts.values():
        module, function = target.split(":")
        if ".ros." in module:
            pytest.importorskip("rclpy")
        assert callable(getattr(importlib.import_module(module), function))


ROSDEP_KEYS = {
    *("ament_cmake", "ament_copyright", "diagnostic_msgs", "geometry_msgs", "launch", "launch_ros"),
    *("launch_testing", "launch_testing_ament_cmake", "launch_testing_ros", "lifecycle_msgs"),
    *("nav2_costmap_2d", "rcl_interfaces", "rclpy", "rmw_cyclonedds_cpp", "rmw_fastrtps_cpp"),
    *("ros2launch", "rviz2", "sensor_msgs", "std_msgs", "tf2_geometry_msgs", "tf2_ros"),
    *("tf2_ros_py", "vision_msgs"),
    *("python3-cairo", "python3-h5py", "python3-jinja2", "python3-lz4", "python3-matplotlib"),
    *("python3-mypy", "python3-numpy", "python3-opencv", "python3-pil", "python3-pip"),
    *("python3-psutil", "python3-pydantic", "python3-pytest", "python3-pytest-timeout"),
    *("python3-requests", "python3-rich", "python3-scipy", "python3-setuptools"),
    *("python3-skimage", "python3-typing-extensions", "python3-yaml", "python3-zstandard"),
}
"""Packages of Jazzy and keys of rosdep's base.yaml and python.yaml, those that may be needed here.
`rosdep install` stops at the first key that it does not know."""


def test_rosdep_knows_every_dependency(manifest):
    dependencies = (
        *manifest.build_depends,
        *manifest.build_export_depends,
        *manifest.buildtool_depends,
        *manifest.exec_depends,
        *manifest.test_depends,
    )
    assert {d.name for d in dependencies} <= ROSDEP_KEYS


def test_every_import_is_a_declared_dependency(distribution, manifest):
    declared = {canonicalize_name(r.name) for r in requirements(distribution)}
    declared |= {d.name for d in manifest.exec_depends}
    declared |= {"tf2_ros"} if "tf2_ros_py" in declared else set()  # its module
    declared |= {"triton"}  # torch requires it, and pins it, on Linux
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        name: path
        for name, path in imported_modules().items()
        if name not in declared
        and declared.isdisjoint(canonicalize_name(p) for p in providers.get(name, []))
    }
    assert not undeclared, "add these to pyproject.toml, and ROS packages to package.xml"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_pin_every_direct_requirement(distribution, python):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pinned = {
        canonicalize_name(p.name): next(iter(p.specifier))
        for p in pins
        if p.marker is None or p.marker.evaluate(environment)
    }
    for requirement in requirements(distribution):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt does not pin {requirement.name}: make constraints"
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement} is pinned to {pin}"


@pytest.mark.slow
@pytest.mark.parametrize("symlink", [False, True], ids=["copied", "symlinked"])
def test_colcon_builds_a_workspace_that_finds_its_files(tmp_path, symlink):
    pytest.importorskip("colcon_core", reason="colcon is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["AMENT_PREFIX_PATH"] = sys.prefix
    command = [sys.executable, "-m", "colcon", "--log-base", str(tmp_path / "log"), "build"]
    command += ["--paths", str(ROOT), "--build-base", str(tmp_path / "build")]
    command += ["--install-base", str(tmp_path / "install")]
    command += ["--symlink-install"] if symlink else []
    build = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr

    prefix = tmp_path / "install" / "emu_perception"
    share = prefix / "share" / "emu_perception"
    assert all((share / f).is_file() for f in shipped_files())
    for script in ("emu", "emu_node"):
        assert os.access(prefix / "lib" / "emu_perception" / script, os.X_OK)

    ask = "import emu_perception as e, emu_perception.resources as r\n"
    ask += "print(e.__file__, r.find_resource('config', 'labels', 'camvid.yaml'))"
    answer = subprocess.run(
        ["bash", "-c", f'source install/local_setup.bash && "{sys.executable}" -c "{ask}"'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    module, resource = (Path(p) for p in answer.stdout.split())
    assert module.is_relative_to(tmp_path)
    # A symlinked workspace resolves to the source tree, so that an edit there is seen.
    assert resource.is_relative_to(ROOT if symlink else share)
