"""Plays a recording to the node and scores what it answers: `ros2 launch … replay.launch.py bag:=…`

The player waits for the answer to each image, so that none is dropped; when it is done, the
evaluator writes its report and everything ends.
"""

from __future__ import annotations

from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from emu_perception.transport import choose_profile, free_bytes
from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]

PACKAGE = "emu_perception"
REPORT_SECONDS = "60"
"""For the evaluator to write its report before it receives another signal."""
ARGUMENTS = {
    "bag": (None, "rosbag2 folder, .mcap or .db3 file"),
    "image_topic": (None, "the recording's image topic, without /compressed"),
    "camera_info_topic": ("camera_info", "the recording's camera_info topic"),
    "image_transport": ("raw", "raw or compressed, as it was recorded"),
    "model": ("", "model file, or the name of a shipped model; empty: as in params_file"),
    "report": ("report", "folder for the report"),
    "namespace": ("", "namespace of the node and its outputs"),
}
PLAYER_ARGUMENTS = {
    "labels": "folder of label PNGs",
    "depth": "folder of 16-bit depth PNGs",
    "match": "whose files they are: index or stamp",
    "depth_scale": "metres per unit of 16-bit depth",
    "labels_topic": "the recording's topic with true labels",
    "depth_topic": "the recording's topic with true depth",
    "seconds": "play no more than these",
    "timeout": "seconds to wait for each answer",
}
"""Options of the player by the argument's name; empty leaves them out."""


def start(context: LaunchContext) -> list[Node]:
    """Node, evaluator and player."""

    def given(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    image, transport = given("image_topic"), given("image_transport")
    common = {"image_transport": transport}
    if given("model"):
        common["model"] = given("model")
    params_file = LaunchConfiguration("params_file")
    remappings = [("image", image), ("camera_info", given("camera_info_topic"))]
    options = ["--image-topic", image + ("/compressed" if transport == "compressed" else "")]
    for name in PLAYER_ARGUMENTS:
        if given(name):
            options += [f"--{name.replace('_', '-')}", given(name)]
    # Which of them depth comes in, the evaluator must know too.
    scale = {"depth_scale": float(given("depth_scale"))} if given("depth_scale") else {}
    return [
        Node(
            package=PACKAGE,
            executable="emu_node",
            namespace=given("namespace"),
            parameters=[params_file, common],
            remappings=remappings,
            output="screen",
        ),
        Node(
            package=PACKAGE,
            executable="emu_evaluator",
            namespace=given("namespace"),
            # Its model, too, is the one of the parameters' file where none is named.
            parameters=[params_file, {**common, **scale, "report": given("report")}],
            remappings=remappings,
            output="screen",
            sigterm_timeout=REPORT_SECONDS,
        ),
        Node(
            package=PACKAGE,
            executable="emu_bag_player",
            namespace=given("namespace"),
            arguments=[given("bag"), "--paced", "--wait", "300", *options],
            on_exit=end,
        ),
    ]


def end(event: ProcessExited, context: LaunchContext) -> list[Shutdown]:
    """End everything with the player; its failure becomes that of `ros2 launch`.

    Raises:
        RuntimeError: the player failed. launch then shuts down and exits with status 1.
    """
    if event.returncode:
        reasons = {3: "not every image was answered"}
        reason = reasons.get(event.returncode, "the recording could not be played")
        raise RuntimeError(f"the replay failed: {reason} (status {event.returncode})")
    return [Shutdown(reason="the recording has been played")]


def generate_launch_description() -> LaunchDescription:
    """Return the description that `ros2 launch` runs."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="", description=description)
        for name, description in PLAYER_ARGUMENTS.items()
    ]
    arguments.append(
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution(
                [FindPackageShare(PACKAGE), "config", "node", "emu_perception.yaml"]
            ),
            description="YAML file with the parameters of node and evaluator, below /**",
        )
    )
    # Fast DDS loses most large images without this.
    profile, warning = choose_profile(free_bytes())
    transport = SetEnvironmentVariable(
        "FASTDDS_DEFAULT_PROFILES_FILE",
        EnvironmentVariable(
            "FASTDDS_DEFAULT_PROFILES_FILE",
            default_value=PathJoinSubstitution(
                [FindPackageShare(PACKAGE), "config", "node", profile]
            ),
        ),
    )
    notes = [LogInfo(msg=warning)] if warning else []
    return LaunchDescription([*arguments, *notes, transport, OpaqueFunction(function=start)])
