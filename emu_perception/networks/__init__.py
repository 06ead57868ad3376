"""Networks: tensors in, tensors out. No ROS and no I/O."""

from emu_perception.networks.lean_import import import_timm

import_timm()  # before any module of this package does
