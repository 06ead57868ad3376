"""Things pasted into images: where they are, what is judged, what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from emu_perception.data import Dataset, Pasted
from emu_perception.data.pasted import (
    RIM,
    cutouts,
    eroded,
)
from emu_perception.data.sample import DataError, Sample
from emu_perception.labels import load_label_set
from emu_perception.training.data_config import DatasetConfig

CAR = load_label_set("camvid").index("car")
SIZE = (80, 120)


class Squares(Dataset):
    """Images of one colour with a square of another, of a class or odd."""

    label_set = load_label_set("camvid")
    tasks = ("semantic", "depth")

    def __init__(self, colour: int, square: int | None = None, odd: bool = False) -> None:
        self.colour, self.square, self.odd = colour, square, odd

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return str(range(3)[index])

    clip = name

    def __getitem__(self, index: int) -> Sample:
        image = np.full((*SIZE, 3), self.colour, np.uint8)
        labels = np.full(SIZE, 3, np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        if self.square is not None:
            window = (slice(20, 44), slice(30, 54))
            image[window], mask[window] = self.square, 1
            labels[window] = 255 if self.odd else CAR
        return Sample(
            self.name(index),
            "clip",
            image,
            labels,
            np.full(SIZE, 7.0, np.float32),
            odd=mask if self.odd else None,
        )


def test_parts_are_cut_out() -> None:
    mask = np.zeros((60, 90), bool)
    mask[10:30, 5:29] = True
    mask[40:50, 40:50] = True  # of which nothing is left
    mask[20:50, 70:90] = True  # cut off by the border
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    (found,) = cutouts(image, mask)
    assert found.mask.shape == (20, 24) and found.mask.all()
    assert np.array_equal(found.image, image[10:30, 5:29])
    assert eroded(found.mask).sum() == (20 - 2 * RIM) * (24 - 2 * RIM)


def test_only_the_inside_of_what_was_pasted_is_judged() -> None:
    data = Pasted(Squares(100), Squares(0, 250, odd=True), Squares(0, 10), ["car"], per_image=1)
    for index in range(3):
        sample, plain = data[index], Squares(100)[index]
        sample.check(11)
        assert np.array_equal(sample.image, data[index].image)  # the same every time
        odd, known = sample.odd == 1, sample.odd == 0
        assert odd.sum() >= 40 and known.sum() >= 0
        assert (sample.image[odd] > 240).all() and (sample.image[known] < 20).all()
        judged = odd | known
        assert (sample.labels[judged] == 255).all() and (sample.depth[judged] == 0).all()
        same = sample.labels == plain.labels
        assert np.array_equal(sample.image[same], plain.image[same])
        assert np.array_equal(sample.depth[same], plain.depth[same])
        assert 0.5 < same.mean() < 0.95
    assert any((data[i].odd == 0).any() for i in range(3))
    assert not np.array_equal(data[0].odd, data[1].odd)


def test_what_cannot_be_pasted_is_refused() -> None:
    plain, odd = Squares(100), Squares(0, 250, odd=True)
    with pytest.raises(DataError, match="nothing to cut out of the data set 'known'"):
        Pasted(plain, odd, plain, ["car"])
    with pytest.raises(DataError, match="nothing to cut out of the data set 'odd'"):
        Pasted(plain, plain, Squares(0, 10), ["car"])
    with pytest.raises(ValueError, match="classes are train; the data set has sky"):
        Pasted(plain, odd, Squares(0, 10), ["train"])


def test_a_configuration_names_what_is_pasted() -> None:
    scenes = {"name": "scenes", "split": "test"}
    pasted = {"odd": scenes, "known": scenes, "classes": ["car"]}
    config = DatasetConfig.model_validate({**scenes, "pasted": pasted})
    assert config.pasted is not None and config.pasted.odd.name == "scenes"
