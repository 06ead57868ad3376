"""Starts the node, and optionally RViz: `ros2 launch emu_perception emu_perception.launch.py`."""

from __future__ import annotations

from typing import Any

import yaml
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from emu_perception.transport import choose_profile, free_bytes
from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]

PACKAGE = "emu_perception"
ARGUMENTS = {
    "image_topic": ("image", "the camera's image topic"),
    "camera_info_topic": ("camera_info", "the camera's camera_info topic"),
    "namespace": ("", "namespace of the node and its outputs"),
    "node_name": (PACKAGE, "name of the node"),
    "rviz": ("false", "start RViz with the shipped layout"),
    "fixed_frame": ("camera", "RViz's fixed frame: the camera's optical frame, or one above it"),
    "log_level": ("info", "debug, info, warn or error"),
}
PARAMETERS = {
    "model": "model file, or the name of a shipped model",
    "image_transport": "raw or compressed",
    "device": "auto, cpu or cuda",
    "precision": "auto, fp32, fp16 or bf16",
    "autostart": "whether the node configures and activates itself",
    "use_sim_time": "take the time from /clock",
}
"""Arguments that are parameters of the node; empty keeps the value of the parameter file."""
RVIZ_TOPICS = (
    "overlay",
    "points",
    "depth/color",
    "depth/uncertainty_color",
    "semantic/uncertainty_color",
)


def shared(*parts: str) -> PathJoinSubstitution:
    """A file of the package's share folder."""
    return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])


def start_node(context: LaunchContext) -> list[Node]:
    """The node, with those parameters over the file's that were given as arguments."""
    given: dict[str, Any] = {}
    for name in PARAMETERS:
        value = LaunchConfiguration(name).perform(context)
        if value:
            # Only the booleans are read as YAML: a model may well be called "1".
            given[name] = yaml.safe_load(value) if name in ("autostart", "use_sim_time") else value
    return [
        Node(
            package=PACKAGE,
            executable="emu_node",
            name=LaunchConfiguration("node_name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), *([given] if given else [])],
            remappings=[
                ("image", LaunchConfiguration("image_topic")),
                ("camera_info", LaunchConfiguration("camera_info_topic")),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the description that `ros2 launch` runs."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(
            name, default_value="", description=f"{description}; empty: as in params_file"
        )
        for name, description in PARAMETERS.items()
    ]
    arguments.append(
        DeclareLaunchArgument(
            "params_file",
            default_value=shared("config", "node", "emu_perception.yaml"),
            description="YAML file with the node's parameters",
        )
    )
    # Fast DDS loses most large images without this; the camera's process needs it too.
    profile, warning = choose_profile(free_bytes())
    notes = [LogInfo(msg=warning)] if warning else []
    transport = SetEnvironmentVariable(
        "FASTDDS_DEFAULT_PROFILES_FILE",
        EnvironmentVariable(
            "FASTDDS_DEFAULT_PROFILES_FILE", default_value=shared("config", "node", profile)
        ),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            *("-d", shared("config", "node", "emu_perception.rviz")),
            *("-f", LaunchConfiguration("fixed_frame")),
        ],
        # The layout's topics are absolute; these make them follow the namespace.
        remappings=[
            ("/image", LaunchConfiguration("image_topic")),
            *((f"/{topic}", topic) for topic in RVIZ_TOPICS),
        ],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    node = OpaqueFunction(function=start_node)
    return LaunchDescription([*arguments, *notes, transport, node, rviz])
