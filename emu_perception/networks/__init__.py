"""Networks: tensors in, tensors out. No ROS and no I/O."""
