"""Build script of colcon's ament_python and of pip. The metadata is in pyproject.toml.

This file holds what pyproject.toml cannot: the version and the licences, which package.xml defines
for ROS, the Python versions in the form that colcon reads, and the data files of the share folder.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import Extension, setup

PACKAGE = "emu_perception"
ROOT = Path(__file__).resolve().parent  # colcon --symlink-install runs a link to this file
SHARE = Path("share") / PACKAGE
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()


def share_files(*folders: str) -> list[tuple[str, list[str]]]:
    """List the files below the folders with their places below the share folder."""
    files: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in relative.parts:
                files.setdefault(str(SHARE / relative.parent), []).append(str(relative))
    return list(files.items())


setup(
    version=MANIFEST.findtext("version"),
    python_requires=">=3.10",
    license=" AND ".join(element.text or "" for element in MANIFEST.iter("license")),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        # colcon --symlink-install builds from links to the data files alone: it needs all three.
        (str(SHARE), ["package.xml", "pyproject.toml", "README.md"]),
        *share_files("config", "launch", "models"),
    ],
    # Without a C compiler the package installs without it: NumPy computes the same, more slowly.
    ext_modules=[
        Extension(
            f"{PACKAGE}.inference._kernels",
            [f"{PACKAGE}/inference/kernels.c"],
            extra_compile_args=["-O3", "-fno-trapping-math", "-Wno-psabi"],
            optional=True,
        )
    ],
    zip_safe=False,
)
