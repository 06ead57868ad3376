"""Usage of the ROS programs that have no options of their own, only ROS arguments."""

from __future__ import annotations

from collections.abc import Sequence

ROS_ARGUMENTS = "[--ros-args [-r FROM:=TO] [-p NAME:=VALUE] [--params-file FILE] ...]"
EVALUATOR = """\
Compares the published maps of emu_node with ground truth that is also published. It writes a report
when it receives SIGINT or SIGTERM.

Topics: image (or image/compressed), the maps of emu_node, ground_truth/labels, ground_truth/depth.

Parameters:
  model            model file or name of a shipped model; empty: the default model
  report           folder for the report (default: report)
  image_transport  raw or compressed (default: raw)
  depth_scale      metres per unit of 16-bit ground_truth/depth (default: 0.001)
  replicates       bootstrap draws of the confidence intervals (default: 1000)
"""


def is_asked_for_help(arguments: Sequence[str]) -> bool:
    """Whether -h or --help is among the arguments that are not for ROS."""
    ours = list(arguments)
    if "--ros-args" in ours:
        ours = ours[: ours.index("--ros-args")]
    return bool({"-h", "--help"} & set(ours))


def node_usage() -> str:
    """Usage of `emu_node`, with its parameters."""
    from emu_perception.ros.settings import FIELDS

    parameters = "\n".join(
        f"  {name} (default: {spec.default!r})\n      {spec.metadata['description']}"
        for name, spec in FIELDS.items()
    )
    return f"""\
usage: emu_node {ROS_ARGUMENTS}

ROS 2 lifecycle node: images in; semantic class, depth and the uncertainty of both out.

Example: emu_node --ros-args -r image:=/camera/image_raw -r camera_info:=/camera/camera_info

Input topics: image (or image/compressed), camera_info.

Parameters:
{parameters}"""


def evaluator_usage() -> str:
    """Usage of `emu_evaluator`."""
    return f"usage: emu_evaluator {ROS_ARGUMENTS}\n\n{EVALUATOR}"
