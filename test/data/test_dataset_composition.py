"""Mixtures, partial annotation, other label sets and sizes, derived ground truth, batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.data import (
    Dataset,
    Derived,
    Mixture,
    PartiallyAnnotated,
    Relabelled,
    Resized,
    Source,
    Subset,
    build_dataset,
    collate,
    make_loader,
)
from emu_perception.data.partial import draw_annotation
from emu_perception.data.sample import DataError, Sample
from emu_perception.labels import load_label_set


class Plain(Dataset):
    """Samples in memory, all with classes and depth."""

    tasks = ("semantic", "depth")

    def __init__(self, prefix: str, count: int, label_set: str = "camvid") -> None:
        self.prefix, self.count = prefix, count
        self.label_set = load_label_set(label_set)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.prefix}{range(self.count)[index]}"

    def clip(self, index: int) -> str:
        return self.prefix

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            self.name(index),
            self.prefix,
            np.full((8, 10, 3), index % 256, np.uint8),
            labels=np.tile(np.arange(10, dtype=np.uint8), (8, 1)),
            depth=np.full((8, 10), 5.0, np.float32),
            intrinsics=Intrinsics(12, 12, 4.5, 3.5, 10, 8),
        )


def drawn(mixture: Mixture) -> list[str]:
    return [mixture.name(i) for i in range(len(mixture))]


def of_process(mixture: Mixture, rank: int, processes: int) -> list[int]:
    """The samples that one of several processes draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr("torch.utils.data.distributed.dist.get_world_size", lambda: processes)
        patch.setattr("torch.utils.data.distributed.dist.get_rank", lambda: rank)
        return list(make_loader(mixture, 12, shuffle=True).sampler)


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.05, 1), min_size=2, max_size=4),
    st.integers(0, 1000),
    st.integers(0, 50),
    st.sampled_from([1, 2, 3, 5, 8]),
)
def test_batches_of_a_mixture_have_its_proportions(
    shares: list[float], seed: int, epoch: int, processes: int
) -> None:
    sources = [Source(Plain(letter, 7), share) for letter, share in zip("abcd", shares)]
    mixture = Mixture(sources, 240, seed)
    mixture.set_epoch(epoch)
    names = drawn(mixture)
    given_out = [of_process(mixture, rank, processes) for rank in range(processes)]
    assert sorted(i for indices in given_out for i in indices) == list(range(240))
    for indices in given_out:
        mine = [names[index] for index in indices]
        for start in range(0, len(mine) - 12, 12):
            counts = Counter(name[0] for name in mine[start : start + 12])
            for letter, share in zip("abcd", shares):
                assert abs(counts[letter] - 12 * share / sum(shares)) < 3
    whole = Counter(name[0] for name in names)
    for letter, share in zip("abcd", shares):
        assert abs(whole[letter] - 240 * share / sum(shares)) < 4


def test_a_mixture_goes_round_small_sources_and_shuffles_each_round() -> None:
    small, large = Plain("s", 5), Plain("l", 1000)
    mixture = Mixture([Source(small, 1), Source(large, 1)], 100, seed=3)
    names = drawn(mixture)
    of_small = [n for n in names if n[0] == "s"]
    counts = Counter(of_small)
    assert max(counts.values()) - min(counts.values()) <= 1
    rounds = [tuple(of_small[i : i + 5]) for i in range(0, 45, 5)]
    assert all(len(set(r)) == 5 for r in rounds)
    assert len(set(rounds)) > 1
    of_large = [n for n in names if n[0] == "l"]
    assert len(set(of_large)) == len(of_large)
    mixture.set_epoch(1)
    assert drawn(mixture) != names
    mixture.set_epoch(0)
    assert drawn(mixture) == names
    assert mixture[3].name == names[3]
    assert mixture.clip(3) == names[3][0]
    with pytest.raises(IndexError):
        mixture[100]


def test_mixtures_of_different_labels(camvid: Path, tmp_path: Path) -> None:
    real = build_dataset("camvid", camvid, "train")
    assert Mixture([Source(real, 1), Source(Plain("p", 3), 1)], 4).tasks == ("semantic", "depth")
    with pytest.raises(ValueError, match="differ in their classes: camvid, cityscapes"):
        Mixture([Source(real, 1), Source(Plain("p", 3, "cityscapes"), 1)], 4)
    with pytest.raises(ValueError, match="not empty, and positive proportions"):
        Mixture([Source(real, 0)], 4)


def test_relabelled() -> None:
    classes = load_label_set("cityscapes")
    alone = {"building": "building", "tree": "vegetation", "sign": "traffic sign", "car": "car"}
    dataset = Relabelled(Plain("a", 1), classes, alone)
    # camvid: sky building pole road pavement tree sign fence car pedestrian
    assert dataset[0].labels[0].tolist() == [10, 2, 5, 0, 1, 8, 7, 4, 13, 11]
    assert dataset.label_set == classes
    # Only bicyclist, which no sample has, still covers several classes.
    assert dataset.label_groups == ((12, 17, 18),)
    with pytest.raises(ValueError, match="cannot rename class 'lawn' to 'terrain'"):
        Relabelled(Plain("a", 1), classes, {"lawn": "terrain"})


def test_relabelled_by_the_label_set_s_own_mapping() -> None:
    classes = load_label_set("cityscapes")
    dataset = Relabelled(Plain("a", 1), classes)
    groups = {
        tuple(classes.index(name) for name in names)
        for names in (
            ("building", "wall"),
            ("vegetation", "terrain"),
            ("traffic light", "traffic sign"),
            ("car", "truck", "bus", "train"),
            ("rider", "motorcycle", "bicycle"),
        )
    }
    assert set(dataset.label_groups) == groups

    def coarse(*names: str) -> int:
        return 19 + dataset.label_groups.index(tuple(sorted(map(classes.index, names))))

    assert dataset[0].labels[0].tolist() == [
        *(10, coarse("building", "wall"), 5, 0, 1, coarse("vegetation", "terrain")),
        *(coarse("traffic sign", "traffic light"), 4, coarse("car", "truck", "bus", "train"), 11),
    ]


def test_resized_and_subset() -> None:
    dataset = Resized(Subset(Plain("a", 9), [7, 2]), (4, 5))
    assert len(dataset) == 2
    sample = dataset[0]
    assert (sample.name, sample.size, dataset.name(1)) == ("a7", (4, 5), "a2")
    assert sample.intrinsics == Intrinsics(6, 6, 2, 1.5, 5, 4)
    assert sample.depth.max() == 5


def test_derived() -> None:
    dataset = Derived(Plain("a", 1))
    assert dataset.tasks == ("semantic", "depth", "normals", "edges")
    sample = dataset[0]
    sample.check(11)
    assert sample.normals[4, 5] == pytest.approx([0, 0, -1], abs=1e-5)
    assert (sample.edges == 1).all()  # a class per column
    with pytest.raises(ValueError, match="cannot derive 'saliency'"):
        Derived(Plain("a", 1), ["saliency"])


def test_deriving_needs_what_it_is_derived_from(camvid: Path, sparse_depth: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot derive 'normals', which needs 'depth'"):
        Derived(build_dataset("camvid", camvid, "train"), ["normals"])


def test_one_label_each() -> None:
    names = [f"n{i}" for i in range(90)]
    kept = draw_annotation(names, ("semantic", "depth", "normals"), "one", seed=1)
    assert Counter(kept.values()) == {("semantic",): 30, ("depth",): 30, ("normals",): 30}
    assert kept == draw_annotation(names, ("semantic", "depth", "normals"), "one", seed=1)
    assert kept != draw_annotation(names, ("semantic", "depth", "normals"), "one", seed=2)


def test_a_random_number_of_labels() -> None:
    names = [f"n{i}" for i in range(2000)]
    kept = draw_annotation(names, ("semantic", "depth", "normals"), "random", seed=1)
    numbers = Counter(len(tasks) for tasks in kept.values())
    assert set(numbers) == {1, 2}
    assert abs(numbers[1] - 1000) < 120
    each = Counter(task for tasks in kept.values() for task in tasks)
    assert all(abs(count - 1000) < 120 for count in each.values())
    two = draw_annotation(names, ("semantic", "depth"), "random", seed=1)
    assert {len(tasks) for tasks in two.values()} == {1}


def test_labels_in_a_ratio() -> None:
    names = [f"n{i}" for i in range(50)]
    kept = draw_annotation(names, ("semantic", "depth"), "ratio", seed=1, ratio=(1, 9))
    assert Counter(kept.values()) == {("semantic",): 5, ("depth",): 45}
    with pytest.raises(ValueError, match="ratio belongs to the regime 'ratio'"):
        draw_annotation(names, ("semantic", "depth"), "one", seed=1, ratio=(1, 9))
    with pytest.raises(ValueError, match="does not give a share to each"):
        draw_annotation(names, ("semantic", "depth"), "ratio", seed=1, ratio=(1, 2, 3))
    with pytest.raises(ValueError, match="at least two tasks"):
        draw_annotation(names, ("semantic",), "one", seed=1)
    with pytest.raises(ValueError, match="unknown regime 'most'"):
        draw_annotation(names, ("semantic", "depth"), "most", seed=1)


def test_partial_annotation_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "annotation.json"
    source = Derived(Plain("a", 20))

    def annotated(seed: int = 5, count: int = 20) -> PartiallyAnnotated:
        images = Subset(source, range(count))
        return PartiallyAnnotated(images, ("semantic", "depth"), "one", seed=seed, path=path)

    first = annotated()
    assert {sample.tasks for sample in first} == {("semantic",), ("depth",)}
    stored = json.loads(path.read_text())
    stored["images"]["a3"] = ["semantic", "depth"]  # what the file says counts
    path.write_text(json.dumps(stored))
    assert annotated()[3].tasks == ("semantic", "depth")
    with pytest.raises(DataError, match=r"annotation\.json: was drawn with seed 5, not 6"):
        annotated(seed=6)
    with pytest.raises(DataError, match="was drawn for other images"):
        annotated(count=19)
    path.write_text("[]")
    with pytest.raises(DataError, match="is not an annotation file"):
        annotated()
    with pytest.raises(ValueError, match="has no labels for normals, only for semantic, depth"):
        PartiallyAnnotated(Plain("a", 2), ("semantic", "normals"), "one")


def test_a_batch_of_mixed_labels() -> None:
    full = Derived(Plain("a", 1))[0]
    bare = Sample("bare", "b", np.zeros((8, 10, 3), np.uint8), seed=2**63 - 1)
    batch = collate([full, bare], ("semantic", "depth", "normals", "edges"))
    assert batch["image"].shape == (2, 3, 8, 10)
    assert batch["image"].dtype == torch.uint8
    for field in ("labels", "depth", "normals", "edges"):
        assert batch[f"has_{field}"].tolist() == [True, False]
        valid = batch[f"{field}_valid"]
        assert valid.shape == (2, 8, 10)
        assert valid[0].any()
        assert not valid[1].any()
    assert batch["labels"].dtype == torch.int64
    assert (batch["labels"][1] == 255).all()
    assert (batch["depth"][1] == 0).all()
    assert batch["normals"].shape == (2, 3, 8, 10)
    assert batch["has_intrinsics"].tolist() == [True, False]
    assert batch["intrinsics"][0].tolist() == [12, 12, 4.5, 3.5]
    assert batch["intrinsics"][1].isnan().all()
    assert batch["seed"].tolist() == [0, 2**63 - 1]
    assert batch["clip"] == ["a", "b"]
    assert set(collate([bare], ("depth",))) == {
        *("image", "intrinsics", "has_intrinsics", "target", "seed", "name", "clip"),
        *("depth", "depth_valid", "has_depth"),
    }
    # An unlabelled task gives no gradient and no NaN.
    logits = torch.zeros(2, 11, 8, 10, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, batch["labels"], ignore_index=255).backward()
    assert logits.grad[1].abs().sum() == 0


def test_a_batch_of_different_sizes_names_them() -> None:
    small = Resized(Plain("a", 1), (4, 5))[0]
    with pytest.raises(DataError, match=r"one size, got 'a0' 10 x 8, 'a0' 5 x 4"):
        collate([Plain("a", 1)[0], small], ())
