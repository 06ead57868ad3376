"""A recording with outputs added: all that was there, and what the predictor says of its images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags.interfaces import QosDurability
from typer.testing import CliRunner

from emu_perception.camera import Intrinsics
from emu_perception.cli import app
from emu_perception.inference.predictor import Predictor
from emu_perception.labels import load_label_set
from emu_perception.messages.images import map_values
from emu_perception.messages.topics import (
    IMAGE_OUTPUTS,
    Maps,
    Style,
    available_outputs,
)
from emu_perception.recordings import BagReader, BagWriter
from emu_perception.recordings.annotate import output_topics
from emu_perception.recordings.image_messages import (
    camera_info_message,
    compressed_image_message,
    image_message,
)

SECOND = 10**9
CAMERA = Intrinsics.from_field_of_view(64, 32, 70)


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    return write_model(input_size=(32, 64), arguments={"width": 8})


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 64, 3), np.uint8)


def write_drive(path: Path, broken: bool = False) -> Path:
    with BagWriter(path) as bag:
        bag.add_topic("/quiet", "std_msgs/msg/String", latched=True)
        for i in range(1, 4):
            info = camera_info_message(CAMERA, i * SECOND, "optical")
            bag.write("/camera/camera_info", info, i * SECOND)
            bag.write("/camera/image", image_message(picture(i), i * SECOND, "optical"), i * SECOND)
        if broken:
            message = compressed_image_message(b"no picture", "jpeg", 5)
            bag.write("/other/compressed", message, 4 * SECOND)
    return path


def annotate(*arguments: object) -> tuple[int, str]:
    command = ["bag", "annotate", *map(str, arguments), "--engine", "pytorch"]
    found = CliRunner().invoke(app, command)
    return found.exit_code, f"{found.output}{found.exception}"


def test_outputs_are_added_to_what_was_there(tmp_path: Path, model_file: Path) -> None:
    drive = write_drive(tmp_path / "drive")
    status, output = annotate(drive, "--out", tmp_path / "new", "--model", model_file)
    assert status == 0, output
    predictor = Predictor.from_pretrained(model_file, engine="pytorch")
    with BagReader(drive) as before, BagReader(tmp_path / "new") as after:
        originals = [t.name for t in before.topics]
        assert list(after.messages(originals)) == list(before.messages())
        added = {t.name: t for t in after.topics if t.name not in originals}
        expected = {f"/{n}": t for n, t in output_topics(predictor.available_maps).items()}
        assert {n: t.msgtype for n, t in added.items()} == expected
        counts = {n: t.count for n, t in added.items()}
        assert counts == dict.fromkeys(expected, 3) | {"/semantic/label_info": 1}
        durability = {
            c.topic: [q.durability for q in c.ext.offered_qos_profiles] for c in after.connections
        }
        assert durability["/quiet"] == [QosDurability.TRANSIENT_LOCAL]
        assert durability["/semantic/label_info"] == [QosDurability.TRANSIENT_LOCAL]

        classes = after.decode(next(after.messages(["/semantic/label_info"]))).class_map
        assert [c.class_name for c in classes] == list(load_label_set("camvid").names)
        for name in available_outputs(predictor.available_maps):
            for i, message in enumerate(after.messages([f"/{name}"]), 1):
                image = after.decode(message)
                assert message.time_ns == i * SECOND
                assert (image.header.stamp.sec, image.header.frame_id) == (i, "optical")
                prediction = predictor.predict(picture(i), CAMERA)
                style = Style(depth_max=predictor.spec.depth_range[1])
                maps = Maps(prediction, picture(i), predictor.label_set, style)
                pixels = IMAGE_OUTPUTS[name].render(maps)
                found = map_values(image) if pixels.ndim == 2 else image.data.reshape(32, 64, 3)
                np.testing.assert_array_equal(found, pixels)


def test_cloud_and_camera_follow_the_size(tmp_path: Path, model_file: Path) -> None:
    status, output = annotate(
        *(write_drive(tmp_path / "drive"), "--out", tmp_path / "new", "--model", model_file),
        *("--output-scale", "0.5", "--namespace", "emu"),
        *("--only", "points", "--only", "depth/camera_info", "--only", "depth/image"),
    )
    assert status == 0, output
    with BagReader(tmp_path / "new") as bag:
        info = bag.decode(next(bag.messages(["/emu/depth/camera_info"])))
        cloud = bag.decode(next(bag.messages(["/emu/points"])))
        depth = map_values(bag.decode(next(bag.messages(["/emu/depth/image"]))))
    half = CAMERA.resized(32, 16)
    assert (info.width, info.height, cloud.width, cloud.height) == (32, 16, 32, 16)
    np.testing.assert_allclose(info.k[[0, 4, 2, 5]], [half.fx, half.fy, half.cx, half.cy])
    points = cloud.data.view(np.float32).reshape(16, 32, -1)
    assert [f.name for f in cloud.fields][:4] == ["x", "y", "z", "rgb"]
    assert cloud.point_step == points.shape[2] * 4
    valid = np.isfinite(points[..., 2])
    assert valid.any()
    np.testing.assert_array_equal(points[valid][:, 2], depth[valid])
    np.testing.assert_allclose(points[..., 0][valid], (half.rays()[..., 0] * depth)[valid])


def test_what_cannot_be_decoded_is_copied_and_counted(tmp_path: Path, model_file: Path) -> None:
    drive = write_drive(tmp_path / "drive", broken=True)
    arguments = ("--model", model_file, "--only", "semantic/labels", "--topic")
    status, output = annotate(drive, "--out", tmp_path / "a", *arguments, "/other/compressed")
    assert status == 1
    assert "not a single image" in output
    with BagReader(tmp_path / "a") as bag:
        assert len(list(bag.messages())) == 7
    with BagWriter(tmp_path / "mixed") as bag:
        bag.write("/camera", image_message(picture(0), 1), 1)
        broken = image_message(picture(1), 2)
        broken.encoding = "rgb9"
        bag.write("/camera", broken, 2)
    status, output = annotate(tmp_path / "mixed", "--out", tmp_path / "b", *arguments, "/camera")
    assert status == 3, output
    assert "1 x unreadable image: image 1: " in output
    assert "outputs for 1 of 2 images" in output


def test_nothing_is_overwritten(tmp_path: Path, model_file: Path) -> None:
    drive = write_drive(tmp_path / "drive")
    first = tmp_path / "first"
    only = ("--only", "semantic/labels", "--model", model_file)
    assert annotate(drive, "--out", first, *only)[0] == 0
    status, output = annotate(drive, "--out", first, *only)
    assert status == 1
    assert "exists already" in output
    again = (first, "--out", tmp_path / "second", *only, "--topic", "/camera/image")
    status, output = annotate(*again)
    assert status == 1
    assert "holds /semantic/labels already" in output
    assert not (tmp_path / "second").exists()
    unknown = (drive, "--out", tmp_path / "third", "--model", model_file, "--only", "smell")
    assert "no output smell; it has semantic/labels" in annotate(*unknown)[1]
