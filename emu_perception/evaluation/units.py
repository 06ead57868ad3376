"""Units of the bootstrap: images, clips, or blocks of consecutive images."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

GROUPS = 128
"""That images or clips are kept in; see `bootstrap`."""
MIN_CLIPS = 10
"""Fewest clips for a draw of clips; with fewer, blocks are drawn."""
BLOCKS = 32
"""At most; of equal length, a power of two."""


class Units:
    """Finds the groups and blocks of frames; all that it keeps of them is the clips' names."""

    def __init__(self) -> None:
        self.images = 0
        self.end = 0
        """Place of the next image in the order of the blocks."""
        self.clips: dict[Hashable, int] = {}
        """Numbers in order of appearance, so that clips of one image fill the groups evenly."""

    def take(self, clip: Hashable | None) -> tuple[int, int]:
        """The next image's group, and its place in the order of the blocks."""
        number = self.images if clip is None else self.clips.setdefault(clip, len(self.clips))
        found = number % GROUPS, self.end
        self.images += 1
        self.end += 1
        return found

    @property
    def by_blocks(self) -> bool:
        """Whether the clips are long, and too few to draw from."""
        return 0 < len(self.clips) < min(MIN_CLIPS, self.images)

    @property
    def block_length(self) -> int:
        """Images in a block."""
        return block_length(self.end)

    @property
    def name(self) -> str:
        """In words."""
        if self.by_blocks:
            length = self.block_length
            return f"blocks of {length} images" if length > 1 else "images"
        return "clips" if 0 < len(self.clips) < self.images else "images"

    def merge(self, other: Units) -> tuple[np.ndarray, int]:
        """Take in another's images as if they had come after the own ones.

        Returns:
            The group here of each of its groups, and the first block here of its own blocks, both
            in blocks of `block_length` images. Of more than `GROUPS` clips those that share a
            group stay together.
        """
        groups = (np.arange(GROUPS) + self.images) % GROUPS
        for clip, number in other.clips.items():
            here = self.clips.setdefault(clip, len(self.clips))
            if number < GROUPS:
                groups[number] = here % GROUPS
        length = max(self.block_length, other.block_length)
        while -(-self.end // length) * length + other.end > length * BLOCKS:
            length *= 2
        first = -(-self.end // length)
        self.images += other.images
        self.end = first * length + other.end
        return groups, first


def block_length(images: int) -> int:
    """The power of two that makes at most `BLOCKS` blocks of so many images."""
    length = 1
    while length * BLOCKS < images:
        length *= 2
    return length
