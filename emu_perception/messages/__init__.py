"""ROS messages from and to arrays. Needs no rclpy."""
