"""Maps in a recording are scored as they are; what is missing of them is named and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emu_perception.labels import LabelSet, load_label_set
from emu_perception.prediction import Prediction
from emu_perception.recordings import (
    BagError,
    BagReader,
    BagWriter,
)
from emu_perception.recordings.frames import FrameReader, PublishedMaps
from emu_perception.recordings.image_messages import header
from emu_perception.recordings.image_messages import image_message as picture_message
from emu_perception.recordings.output_messages import image_message, label_info_message
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.published import (
    MAP_TOPICS,
    OFFLINE_ONLY,
    prediction_of,
)

SECOND = 10**9
SIZE = (6, 8)
CAMVID = load_label_set("camvid")


def published(number: int) -> dict[str, tuple[str, np.ndarray]]:
    rng = np.random.default_rng(number)
    return {
        "semantic/labels": ("mono8", rng.integers(0, 11, SIZE, np.uint8)),
        "semantic/confidence": ("mono8", rng.integers(0, 256, SIZE, np.uint8)),
        "depth/image": ("32FC1", rng.uniform(1, 50, SIZE).astype(np.float32)),
        "depth/uncertainty": ("32FC1", rng.uniform(0, 5, SIZE).astype(np.float32)),
    }


def write(path: Path, label_set: LabelSet, images: bool = True) -> Path:
    """Five frames: the maps of 1 are lost, one of those of 2, the truth of 3."""
    with BagWriter(path) as bag:
        info = label_info_message(header(0, ""), label_set)
        bag.write("/emu/semantic/label_info", info, 1)
        for i in range(5):
            time_ns = (i + 1) * SECOND
            top = header(time_ns, "camera")
            if images:
                image = picture_message(np.full((*SIZE, 3), i, np.uint8), time_ns)
                bag.write("/camera", image, time_ns)
            for name, (encoding, values) in published(i).items():
                if i != 1 and (i, name) != (2, "depth/uncertainty"):
                    message = image_message(top, encoding, values)
                    bag.write(f"/emu/{name}", message, time_ns + 5)
            if i != 3:
                truth = image_message(top, "mono8", np.full((3, 4), i, np.uint8))
                bag.write("/truth", truth, time_ns + SECOND // 2)
    return path


@pytest.mark.parametrize("images", [True, False])
def test_frames_are_what_was_published(tmp_path: Path, images: bool) -> None:
    problems = Problems()
    with BagReader(write(tmp_path / "drive", CAMVID, images)) as bag:
        maps = PublishedMaps(bag, "emu", CAMVID)
        reader = FrameReader(bag, problems, truth_topics={"labels": "/truth"}, maps=maps)
        frames = list(reader.frames())
    assert [f.stamp_ns // SECOND - 1 for f in frames] == [0, 3, 4]
    for frame in frames:
        number = frame.stamp_ns // SECOND - 1
        expected = published(number)
        prediction = frame.prediction
        assert prediction is not None and prediction.probabilities is None
        np.testing.assert_array_equal(prediction.labels, expected["semantic/labels"][1])
        np.testing.assert_allclose(prediction.depth_std, expected["depth/uncertainty"][1], 1e-6)
        confidence = expected["semantic/confidence"][1] / 255
        np.testing.assert_allclose(prediction.confidence, confidence, 1e-6)
        if number == 3:
            assert frame.labels is None
        else:
            np.testing.assert_array_equal(frame.labels, np.full(SIZE, number))
        if images:
            assert frame.image is not None and frame.image[0, 0, 0] == frame.index == number
    counts = {kind: found["count"] for kind, found in problems.values().items()}
    lost = {"image without maps": 1} if images else {}
    assert counts == lost | {
        "labels without maps": 1,
        "incomplete maps": 1,
        "image without labels": 1,
    }
    examples = problems.values()["incomplete maps"]["examples"]
    assert examples == ["stamp 3000000000 ns: without depth/uncertainty"]


def test_maps_of_another_model_are_refused(tmp_path: Path) -> None:
    with BagReader(write(tmp_path / "drive", load_label_set("nyuv2_13"))) as bag:
        with pytest.raises(BagError, match="name the model that made the maps"):
            PublishedMaps(bag, "emu", CAMVID)
        with pytest.raises(BagError, match="holds no published maps such as /semantic/labels"):
            PublishedMaps(bag, "", CAMVID)


LABELS = np.zeros(SIZE, np.uint8)


@pytest.mark.parametrize(
    ("maps", "complaint"),
    [
        ({"semantic/confidence": LABELS}, "neither semantic/labels nor depth/image"),
        (
            {"semantic/labels": LABELS, "depth/image": np.zeros((3, 4), np.float32)},
            "differ in size",
        ),
        ({"semantic/labels": LABELS.astype(np.float32)}, "semantic/labels is float32"),
        ({"depth/image": LABELS}, "depth/image is uint8, expected float32"),
    ],
)
def test_what_no_model_publishes_is_refused(maps: dict[str, np.ndarray], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        prediction_of(maps, 11)


def test_entropies_are_published_as_shares() -> None:
    share = np.full(SIZE, 0.5, np.float32)

    def found(topic: str) -> Prediction:
        return prediction_of({"semantic/labels": LABELS, topic: share}, 11)

    nats = found("semantic/uncertainty").semantic_entropy
    assert nats == pytest.approx(0.5 * np.log(11))
    assert found("semantic/epistemic_uncertainty").semantic_epistemic == pytest.approx(nats)
    assert "semantic.nll" in OFFLINE_ONLY and "semantic.brier" in OFFLINE_ONLY
    assert set(MAP_TOPICS.values()) < set(Prediction.__dataclass_fields__)
