"""The demonstration: a drive through the real node, over DDS, recorded and drawn.

Nothing here imports rclpy: the node, the player and the recorder are processes of their own.
"""
