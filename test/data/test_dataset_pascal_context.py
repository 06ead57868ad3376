"""PASCAL-Context's five tasks: a folder in its layout, from files to figures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("skimage")
import tiny
from scipy import io

from emu_perception.data import build_dataset, check_dataset
from emu_perception.data.pascal_context_tables import WITH_NORMALS
from emu_perception.data.sample import DataError
from emu_perception.experiments import assess
from emu_perception.inference.predictor import Predictor
from emu_perception.training import run
from emu_perception.training.data_module import open_dataset

SIZE = (64, 96)
TASKS = ["semantic", "normals", "edges", "human_parts", "saliency"]


def write_image(root: Path, name: str, person: bool) -> None:
    rng = np.random.default_rng(int(name))
    ids = np.zeros(SIZE, np.uint8)
    ids[:, 40:] = 15
    ids[0] = 255
    context = np.full(SIZE, WITH_NORMALS["wall"], np.uint16)
    context[:, 40:] = 360  # sky: no normals
    normals = np.tile(np.array([128, 128, 255], np.uint8), (*SIZE, 1))
    saliency = np.where(ids == 15, 200, 10).astype(np.uint8)
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([17 * i % 256 for i in range(768)])
    for folder in ("JPEGImages", "semseg/VOC12", "normals_distill", "sal_distill"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    palette.save(root / "semseg" / "VOC12" / f"{name}.png")
    image = np.stack([ids // 2 * 15, saliency, 255 - saliency], axis=2)
    image = (image // 2 + rng.integers(0, 60, image.shape)).astype(np.uint8)
    cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), image)
    cv2.imwrite(str(root / "normals_distill" / f"{name}.png"), normals[..., ::-1])
    # Stored at another size than the image's, as some are.
    small = saliency[::2, ::2]
    cv2.imwrite(str(root / "sal_distill" / f"{name}.png"), small)
    mask = np.zeros(SIZE, np.uint8)
    mask[20:40, 50:80] = 1
    foot = np.zeros(SIZE, np.uint8)
    foot[40:50, 50:80] = 1
    parts = [{"part_name": "torso", "mask": mask}, {"part_name": "lfoot", "mask": foot}]
    thing = {"class_ind": 15 if person else 9, "mask": mask, "parts": np.array(parts, object)}
    for folder in ("human_parts", "pascal-context/trainval"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    io.savemat(root / "human_parts" / f"{name}.mat", {"anno": {"objects": [thing]}})
    io.savemat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": context})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pascal")
    (root / "ImageSets" / "Context").mkdir(parents=True)
    for split, names in (("train", ("1", "2", "3")), ("val", ("4", "5"))):
        (root / "ImageSets" / "Context" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            write_image(root, name, person=name != "2")
    return root


def test_a_sample_of_five_tasks(folder: Path) -> None:
    dataset = build_dataset("pascal_context", folder, "train")
    assert dataset.tasks == tuple(TASKS)
    sample = dataset[0]
    sample.check(21)
    assert np.unique(sample.labels).tolist() == [0, 15, 255]
    assert sample.labels[5, 50] == 15
    np.testing.assert_allclose(sample.normals[5, 5], [0, 0, 1], atol=0.01)
    assert not sample.normals[5, 60].any()
    assert np.unique(sample.human_parts).tolist() == [0, 2, 6]
    assert sample.human_parts[30, 60] == 2 and sample.human_parts[45, 60] == 6
    assert sample.saliency.shape == SIZE
    assert (sample.saliency[2:, 41:] == 1).all() and not sample.saliency[:, :39].any()
    # One line, one pixel wide, where the classes meet.
    assert set(np.flatnonzero(sample.edges[30])) <= {39, 40}
    assert sample.edges[30].sum() == 1
    # Nobody is in the second image: its parts are unknown, not background.
    assert dataset[1].human_parts is None
    assert len(build_dataset("pascal_context", folder, "val")) == 2


def test_what_is_missing_or_broken_is_told(folder: Path, tmp_path: Path) -> None:
    assert check_dataset("pascal_context", folder) == []
    with pytest.raises(DataError, match="has no split 'test'"):
        build_dataset("pascal_context", folder, "test")
    (tmp_path / "ImageSets" / "Context").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / "ImageSets" / "Context" / f"{split}.txt").write_text("7\n")
    write_image(tmp_path, "7", person=True)
    (tmp_path / "human_parts" / "7.mat").write_bytes(b"no matrix")
    (tmp_path / "sal_distill" / "7.png").unlink()
    problems = {problem.what for problem in check_dataset("pascal_context", tmp_path)}
    assert any("is not a readable MATLAB file" in what for what in problems)
    assert "there is no such file" in problems
    unknown = {"class_ind": 15, "parts": np.array([{"part_name": "tail", "mask": 1}], object)}
    io.savemat(tmp_path / "human_parts" / "7.mat", {"anno": {"objects": [unknown]}})
    with pytest.raises(DataError, match=r"7\.mat: is not a file of PASCAL-Part: KeyError"):
        _ = build_dataset("pascal_context", tmp_path, "train")[0]


def test_five_tasks_from_training_to_figures(folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    split = {"name": "pascal_context", "root": str(folder), "split": "train"}
    config = tiny.config(
        folder,
        tmp_path,
        model={
            "architecture": "dilated_aspp",
            "backbone": "resnet10t",
            "tasks": TASKS,
            "arguments": {"width": 8, "rates": [1, 2]},
        },
        data={
            "train": [{**split, "annotation": {"regime": "random"}}],
            "validation": {**split, "split": "val"},
            "crop": [64, 64],
        },
        multitask={
            "losses": {
                "normals": "l1",
                "edges": "weighted_cross_entropy",
                "saliency": "balanced_cross_entropy",
            },
            "partial": {"method": "mapping", "arguments": {"widths": [4, 4, 8, 8]}},
        },
        trainer={"epochs": 1},
    )
    file = run.train(config, progress=False)
    predictor = Predictor.from_pretrained(file, "cpu", engine="pytorch")
    image = np.zeros((64, 96, 3), np.uint8)
    found = predictor.predict(image)
    assert found.human_parts.dtype == np.uint8 and found.human_parts.shape == (64, 96)
    assert 0 <= found.saliency.min() <= found.saliency.max() <= 1
    figures = assess.score(predictor, open_dataset(config.data.validation), replicates=10)
    for key in ("human_parts.miou", "saliency.max_f", "edges.ods_f", "semantic.miou"):
        assert 0 <= figures[key] <= 1
    assert 0 <= figures["normals.mean_angular_error"] <= 180
    logged = predictor.spec.metrics["pascal_context val"]
    assert {"human_parts_miou", "saliency_f1"} <= logged.keys()
