"""Recorded drives: rosbag2 files read and written without a ROS installation."""

from emu_perception.recordings.reader import (
    BagError,
    BagMessage,
    BagReader,
    BagTopic,
)
from emu_perception.recordings.writer import BagWriter

__all__ = ["BagError", "BagMessage", "BagReader", "BagTopic", "BagWriter"]
