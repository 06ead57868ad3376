"""The node under a Nav2 lifecycle manager: `ros2 launch examples/nav2/bringup.launch.py`.

Nav2 itself is started as usual, with `semantic_layer` in its local costmap.
"""

from __future__ import annotations

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription  # type: ignore[attr-defined]

PARAMETERS = Path(__file__).with_name("emu_perception.yaml")


def generate_launch_description() -> LaunchDescription:
    """Describe the node and its lifecycle manager."""
    launch_file = PathJoinSubstitution(
        [FindPackageShare("emu_perception"), "launch", "emu_perception.launch.py"]
    )
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(launch_file),
        launch_arguments={
            "image_topic": LaunchConfiguration("image_topic"),
            "camera_info_topic": LaunchConfiguration("camera_info_topic"),
            "params_file": str(PARAMETERS),
        }.items(),
    )
    manager = Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name="lifecycle_manager_perception",
        parameters=[
            {
                "autostart": True,
                "node_names": ["emu_perception"],
                # Nodes in Python have no bond: with one the manager would take this node for dead.
                "bond_timeout": 0.0,
            }
        ],
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "image_topic", default_value="/camera/image_raw", description="the camera's images"
            ),
            DeclareLaunchArgument(
                "camera_info_topic",
                default_value="/camera/camera_info",
                description="the camera's camera_info",
            ),
            node,
            manager,
        ]
    )
