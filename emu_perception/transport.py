"""Which of the shipped Fast DDS profiles this machine's shared memory allows. Needs no ROS."""

from __future__ import annotations

import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
PROFILES = {"fastdds.xml": 160 << 20, "fastdds_small.xml": 40 << 20, "fastdds_udp.xml": 0}
"""Bytes that must be free for each: a segment of the camera, one of the node, and their ports."""


def free_bytes(path: Path = SHARED_MEMORY) -> int:
    """Free shared memory; 0 where there is none."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def choose_profile(free: int) -> tuple[str, str]:
    """Name of the profile for this much free shared memory, and a warning, empty for the full one.

    Containers have 64 MB by default: the segments of `fastdds.xml` do not fit, and Fast DDS would
    quietly go over to UDP, which loses most large images.
    """
    name = next(name for name, needed in PROFILES.items() if free >= needed)
    if name == "fastdds.xml":
        return name, ""
    return name, (
        f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, images up to 4096 x 4096 need "
        f"{PROFILES['fastdds.xml'] >> 20}: using {name}; start the container with --shm-size=512m"
    )
