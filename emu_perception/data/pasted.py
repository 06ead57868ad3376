"""Images with things pasted in: does the uncertainty tell what is odd from what is only pasted?

Real images show hardly anything that belongs to no class. What is pasted into them always shows: by
its rim, its light, its place. So out-of-distribution objects are compared with patches of
known classes that were pasted in the same way, and nothing else of the image counts; the rims do
not either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from emu_perception.data.dataset import Dataset, Wrapper
from emu_perception.data.randomness import sample_generator
from emu_perception.data.sample import DataError, Sample
from emu_perception.prediction import UNLABELLED

RIM = 5
"""Pixels that a mask is eroded by before it is judged."""
FEATHER = 1.5
"""Pixels, the deviation of the blur of a mask by which colours are mixed."""
SCALE = (0.8, 1.25)
"""Range of the random size of what is pasted."""
MIN_JUDGED = 60
"""Pixels that must be left of a mask after erosion."""
MAX_SHARE = 0.15
"""Largest fraction of the image; larger objects are scaled down."""


class Cutout(NamedTuple):
    """A thing, to be pasted."""

    image: np.ndarray
    """`(h, w, 3)` uint8."""
    mask: np.ndarray
    """`(h, w)` uint8, 1 inside."""


def cutouts(image: np.ndarray, mask: np.ndarray) -> list[Cutout]:
    """The connected parts of a mask that lie wholly inside the image and are large enough.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool.
    """
    height, width = mask.shape
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    found = []
    for part in range(1, count):
        x, y, w, h = (int(v) for v in boxes[part][:4])
        if x == 0 or y == 0 or x + w == width or y + h == height:
            continue
        window = (slice(y, y + h), slice(x, x + w))
        own = (parts[window] == part).astype(np.uint8)
        if eroded(own).sum() >= MIN_JUDGED:
            found.append(Cutout(image[window].copy(), own))
    return found


def eroded(mask: np.ndarray) -> np.ndarray:
    """A mask of 0 and 1 without its rim."""
    kernel = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    padded = np.pad(mask, RIM)  # OpenCV takes what lies outside for a part of it
    return cv2.erode(padded, kernel)[RIM:-RIM, RIM:-RIM]


class Pasted(Wrapper):
    """A data set with out-of-distribution objects and patches of known classes in each image.

    Their pixels lose their labels and their depth. `Sample.odd` is 1 on out-of-distribution
    objects, 0 on patches of known classes, 255 elsewhere and on the rims.

    Args:
        source: the images.
        odd: cut out where its `Sample.odd` is 1.
        known: cut out where it is labelled as one of `classes`.
        classes: names in `known`'s label set.
        per_image: how many of each kind.
        seed: of what is pasted where.

    Raises:
        DataError: nothing can be cut out of `odd` or `known`.
        ValueError: `known` has no such class.
    """

    def __init__(
        self,
        source: Dataset,
        odd: Dataset,
        known: Dataset,
        classes: Sequence[str],
        per_image: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(source)
        if known.label_set is None or not set(classes) <= set(known.label_set.names):
            have = "none" if known.label_set is None else ", ".join(known.label_set.names)
            raise ValueError(f"pasted: classes are {', '.join(classes)}; the data set has {have}")
        ids = [known.label_set.index(name) for name in classes]
        self.odd = [c for s in odd if s.odd is not None for c in cutouts(s.image, s.odd == 1)]
        self.known = [
            c
            for s in known
            if s.labels is not None
            for index in ids
            for c in cutouts(s.image, s.labels == index)
        ]
        for kind, found in (("odd", self.odd), ("known", self.known)):
            if not found:
                raise DataError(f"pasted: there is nothing to cut out of the data set '{kind}'")
        self.per_image, self.seed = per_image, seed

    def change(self, sample: Sample, index: int) -> Sample:
        rng = sample_generator(self.seed, 0, index)
        image = sample.image.astype(np.float32)
        judged = np.full(sample.size, UNLABELLED, np.uint8)
        covered = np.zeros(sample.size, bool)
        for kind in (0, 1) * self.per_image:
            pool = self.odd if kind else self.known
            thing = _fitted(pool[int(rng.integers(len(pool)))], sample.size, rng)
            height, width = thing.mask.shape
            # Streets have their things in the lower part.
            lowest = sample.size[0] - height
            y = int(rng.integers(min(lowest, sample.size[0] // 4), lowest + 1))
            x = int(rng.integers(0, sample.size[1] - width + 1))
            window = (slice(y, y + height), slice(x, x + width))
            alpha = cv2.GaussianBlur(thing.mask.astype(np.float32), (0, 0), FEATHER)
            alpha = (alpha * thing.mask)[..., None]
            image[window] = (1 - alpha) * image[window] + alpha * thing.image
            here = thing.mask == 1
            covered[window] |= here
            judged[window][here] = UNLABELLED  # of what it covers
            judged[window][eroded(thing.mask) == 1] = kind
        labels, depth = sample.labels, sample.depth
        if labels is not None:
            labels = np.where(covered, np.uint8(UNLABELLED), labels)
        if depth is not None:
            depth = np.where(covered, np.float32(0), depth)
        pasted = np.rint(image).astype(np.uint8)
        return replace(sample, image=pasted, labels=labels, depth=depth, odd=judged)


def _fitted(thing: Cutout, size: tuple[int, int], rng: np.random.Generator) -> Cutout:
    """At a random size, and no larger than fits."""
    height, width = thing.mask.shape
    scale = float(np.exp(rng.uniform(*np.log(SCALE))))
    area = height * width * scale**2
    scale *= min(1.0, (MAX_SHARE * size[0] * size[1] / area) ** 0.5)
    scale = min(scale, size[0] / height, size[1] / width)
    new = (max(1, int(width * scale)), max(1, int(height * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(thing.image, new, interpolation=smooth)
    mask = cv2.resize(thing.mask, new, interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return Cutout(image, np.ascontiguousarray(mask))
