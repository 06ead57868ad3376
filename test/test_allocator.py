"""Memory that training steps keep."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from emu_perception.allocator import keep_freed_memory

torch.set_num_threads(1)
if "keep" in sys.argv:
    keep_freed_memory()
for step in range(20):
    if step == 10:  # what is kept is there by then
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(12_000_000) for _ in range(2)]  # 48 MB each: always mapped by default
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    command = [sys.executable, "-c", STEPS, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is the GNU C library's")
def test_a_step_finds_the_memory_of_the_step_before() -> None:
    """Ten steps touch 960 MB: mapped anew that is 234,000 pages, kept next to none."""
    assert page_faults() > 100_000
    assert page_faults("keep") < 5_000
