#!/usr/bin/env bash
# Start the node with launch arguments: docker run … emu_perception image_topic:=/camera/image_raw
set -eo pipefail
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /opt/venv/bin/activate
# Where pip installed the package's share folder, so that `ros2 launch` finds it.
export AMENT_PREFIX_PATH="/opt/venv:${AMENT_PREFIX_PATH}"
exec ros2 launch emu_perception emu_perception.launch.py "$@"
