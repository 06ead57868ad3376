"""Recorded drives through a model: scored frame by frame, without a ROS installation."""
